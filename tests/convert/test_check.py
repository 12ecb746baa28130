"""A report on published files tells all that is wrong with them, file by file and network by network."""

import dataclasses
import hashlib
import json
import math
import re
import shutil
import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest
import torch_files as files
from safetensors.numpy import load_file, save_file

from st2v_jax.convert.check import check
from st2v_jax.convert.numbers import numbers
from st2v_jax.models import build
from st2v_jax.open_model import open_model
from st2v_jax.weights.layout import abstract, streaming

BIAS, KERNEL = 'decoder.conv_out.bias', 'decoder.conv_out.weight'


def network_of(report, name):
    (network,) = (network for network in report.networks if network.name == name)
    return network


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64, jnp.bfloat16])
def test_numbers_of_an_array_in_pieces_are_those_of_the_whole(dtype, monkeypatch):
    monkeypatch.setattr('st2v_jax.convert.numbers.PIECE', 7)
    array = (3 + np.random.default_rng(0).standard_normal((10, 6))).astype(dtype)
    array[0] = 0
    exact = array.astype(np.float64)
    for given in (array, np.asfortranarray(array), array[::-1]):
        found = numbers(given).summary()
        np.testing.assert_allclose(found.pop('mean'), exact.mean(), rtol=1e-12)
        np.testing.assert_allclose(found.pop('std'), exact.std(), rtol=1e-12)
        assert found == {
            'min': exact.min(),
            'max': exact.max(),
            'zeros': 0.1,
            'nan': 0,
            'infinite': 0,
            'beyond_float16': 0,
        }


def test_numbers_that_are_not_finite_are_counted_and_left_out():
    array = np.float32([1, math.nan, 3, math.inf, -math.inf, 65519, -65520, 1e30])
    found = numbers(array).summary()
    assert (found['nan'], found['infinite'], found['beyond_float16']) == (1, 2, 2)
    with np.errstate(over='ignore'):
        rounded = array.astype(np.float16)
    assert np.isinf(rounded).sum() == 2 + found['beyond_float16'], 'what float16 rounds to infinity'
    assert found['max'] == np.float32(1e30) and math.isfinite(found['mean'])
    assert numbers(np.float32([math.nan])).summary() == {
        **dict.fromkeys(('mean', 'std', 'min', 'max')),
        **{'zeros': 0, 'nan': 1, 'infinite': 0, 'beyond_float16': 0},
    }
    assert numbers(np.zeros((0, 3))).summary()['std'] is None
    assert numbers(np.arange(3)).summary()['mean'] == 1


def test_files_that_are_right_have_no_problems(exported, tiny_config, tiny_folder):
    told = []
    report = check([exported], lambda done, total: told.append((done, total)))
    assert report.problems() == {} and report.makes_a_model() and report.absent == []
    used = {network.name: network for network in report.networks if network.used}
    assert used.keys() == {*streaming(tiny_config), 'refiner'}
    for name, tree in abstract(tiny_config, used).items():
        assert used[name].parameters == build.parameter_count(tree)
        assert used[name].dtypes.keys() == {'float16'}
        assert 0 < used[name].statistics['std'] < 1
    unused = {network.name for network in report.networks if not network.used}
    assert unused == {'unet', 'vae', 'text'}, 'what other programs need stands in files of its own'
    assert {file.name: file.kinds for file in report.files} == {
        'exported/streaming_t2v.safetensors': ['streaming model'],
        'exported/non_ema_0035000.safetensors': ['Refiner'],
        'exported/unet/diffusion_pytorch_model.safetensors': ['Video-LDM'],
        'exported/vae/diffusion_pytorch_model.safetensors': ['autoencoder'],
        'exported/text_encoder/model.safetensors': ['CLIP text tower'],
    }
    done, total = told[-1]
    assert told == sorted(told) and total == sum(part.bytes for file in report.files for part in file.parts)
    assert 0.7 * total < done <= total
    written = json.dumps(dataclasses.asdict(report), allow_nan=False)
    assert str(exported.parent) not in written, 'a report is sent to others'


def test_the_digest_is_that_of_the_first_mebibyte(tmp_path):
    for size in (3, 1 << 21):
        data = bytes(range(256)) * (size // 256 + 1)
        (tmp_path / 'a.bin').write_bytes(data[:size])
        (file,) = check([tmp_path / 'a.bin']).files
        (part,) = file.parts
        assert (part.name, part.bytes) == ('a.bin', size)
        assert part.sha256 == hashlib.sha256(data[:size][: 1 << 20]).hexdigest()


@pytest.fixture
def vae(exported, tmp_path):
    """The autoencoder's folder, and its tensors."""
    shutil.copytree(exported / 'vae', tmp_path / 'vae')
    return tmp_path / 'vae', load_file(exported / 'vae' / 'diffusion_pytorch_model.safetensors')


def changed(name, change):
    """tensors -> the same, with one of them changed."""
    return lambda tensors: tensors | {name: change(tensors[name].copy())}


def put(*values):
    def change(array):
        array.reshape(-1)[: len(values)] = values
        return array

    return change


# case: (what becomes of the tensors, problems besides absent networks, fields of the network)
WRONG = {
    'nothing': (lambda tensors: tensors, {}, {}),
    'a missing tensor': (
        lambda tensors: {name: array for name, array in tensors.items() if name != BIAS},
        {('tensor', 'missing'): 1},
        {'missing': [BIAS]},
    ),
    'an unknown tensor': (
        lambda tensors: tensors | {'decoder.extra': np.zeros(3, np.float16)},
        {('tensor', 'unknown'): 1},
        {'unknown': {'decoder.extra': '0 rows of the table match'}},
    ),
    'a wrong shape': (
        changed(KERNEL, lambda array: array[:2]),
        {('tensor', 'of a wrong shape'): 1},
        {'shapes': {KERNEL: 'decoder/to_image/kernel is (3, 3, 8, 3), the checkpoint gives (3, 3, 8, 2)'}},
    ),
    'a wrong number of axes': (
        changed(KERNEL, np.ravel),
        {('tensor', 'of a wrong shape'): 1},
        {'shapes': {KERNEL: '(216,) is not laid out as convolution [o, i, k, k]'}},
    ),
    'NaN': (changed(BIAS, put(math.nan, math.nan)), {('tensor', 'not finite'): 1}, {'nan': {BIAS: 2}}),
    'infinity': (changed(KERNEL, put(-math.inf)), {('tensor', 'not finite'): 1}, {'infinite': {KERNEL: 1}}),
    'NaN and infinity': (
        changed(BIAS, put(math.nan, math.inf)),
        {('tensor', 'not finite'): 1},
        {'nan': {BIAS: 1}, 'infinite': {BIAS: 1}},
    ),
    'too large for float16': (
        lambda tensors: changed(BIAS, put(1e6))({name: a.astype(np.float32) for name, a in tensors.items()}),
        {},
        {'beyond_float16': {BIAS: 1}},
    ),
}


@pytest.mark.parametrize('case', WRONG)
def test_what_is_wrong_with_a_network_is_told_tensor_by_tensor(case, vae):
    change, problems, fields = WRONG[case]
    folder, tensors = vae
    save_file({name: np.ascontiguousarray(a) for name, a in change(tensors).items()}, folder / 'model.safetensors')
    (folder / 'diffusion_pytorch_model.safetensors').unlink()
    report = check([folder])
    assert report.problems() == {('network', 'missing'): 5} | problems
    network = network_of(report, 'vae')
    empty = {'missing': [], **{name: {} for name in ('unknown', 'shapes', 'nan', 'infinite', 'beyond_float16')}}
    told = {name: getattr(network, name) for name in empty}
    path_in_message = {name: text.replace('vae/', '') for name, text in told['shapes'].items()}
    assert told | {'shapes': path_in_message} == empty | fields


def pointer(file):
    file.write_text(f'version https://git-lfs.github.com/spec/v1\noid sha256:{64 * "a"}\nsize 12345\n')


def cut(file):
    file.write_bytes(file.read_bytes()[:-100])


def page(file):
    file.write_text('<!DOCTYPE html><html>log in</html>')


UNUSABLE = {
    'a git-lfs pointer': (pointer, 'is a git-lfs pointer, not the file itself.*'),
    'cut short': (cut, r'the tensors take \d+ bytes, the file has \d+: it is cut short.*'),
    'a page': (page, 'is a web page, not the file itself.*'),
    'empty': (lambda file: file.write_bytes(b''), 'is empty: download it again'),
}


@pytest.mark.parametrize('case', UNUSABLE)
def test_of_three_files_the_two_good_ones_are_read_to_the_end(case, exported, tmp_path):
    spoil, trouble = UNUSABLE[case]
    for part in ('unet', 'vae', 'text_encoder'):
        shutil.copytree(exported / part, tmp_path / 'three' / part)
    spoil(tmp_path / 'three' / 'vae' / 'diffusion_pytorch_model.safetensors')
    report = check([tmp_path / 'three'])
    assert report.problems()['file', 'unusable'] == 1
    troubles = {file.name: file.troubles for file in report.files}
    (line,) = troubles.pop('three/vae/diffusion_pytorch_model.safetensors')
    assert re.fullmatch(trouble, line), line
    assert troubles == {f'three/{name}': [] for name in (
        'text_encoder/model.safetensors', 'unet/diffusion_pytorch_model.safetensors')}  # fmt: skip
    assert {network.name: bool(network.statistics['std']) for network in report.networks} == {
        'text': True,
        'unet': True,
    }
    assert not report.makes_a_model()


def test_a_lost_size_is_told_with_the_kind(vae):
    folder, tensors = vae
    del tensors['post_quant_conv.weight']
    save_file(tensors, folder / 'diffusion_pytorch_model.safetensors')
    report = check([folder])
    (file,) = report.files
    assert file.kinds == ['autoencoder']
    assert network_of(report, 'autoencoder').parameters == sum(a.size for a in tensors.values()), 'all of it is read'
    assert file.troubles == ['autoencoder: post_quant_conv.weight: missing, so the sizes of the model are unknown']


def test_sizes_that_no_model_has_are_told_too(vae):
    folder, tensors = vae
    name = 'encoder.down_blocks.1.resnets.0.conv1.weight'
    save_file(tensors | {name: tensors[name][:5]}, folder / 'diffusion_pytorch_model.safetensors')
    (file,) = check([folder]).files
    (trouble,) = file.troubles
    assert 'not multiples of groups' in trouble


def test_a_damaged_record_is_told_and_the_others_are_read(vae, tmp_path):
    folder, tensors = vae
    path = files.checkpoint('zip', tmp_path / 'vae.ckpt', tensors)
    data, damaged = bytearray(path.read_bytes()), tensors[KERNEL].tobytes()
    data[data.index(damaged)] ^= 1
    path.write_bytes(data)
    shutil.copy(folder / 'config.json', tmp_path)
    report = check([path])
    (file,) = report.files
    assert file.damaged == [KERNEL] and report.problems()['tensor', 'damaged'] == 1
    assert ('tensor', 'missing') not in report.problems(), 'it is counted once'
    assert network_of(report, 'vae').parameters == sum(a.size for a in tensors.values()) - tensors[KERNEL].size


def test_an_index_is_listed_with_its_files(vae, tmp_path):
    folder, tensors = vae
    names, places = list(tensors), {}
    (tmp_path / 'shards').mkdir()
    shutil.copy(folder / 'config.json', tmp_path / 'shards')
    for shard in (1, 2):
        file = f'model-0000{shard}-of-00002.safetensors'
        mine = names[shard - 1 :: 2]
        save_file({name: tensors[name] for name in mine}, tmp_path / 'shards' / file)
        places |= dict.fromkeys(mine, file)
    index = tmp_path / 'shards' / 'model.safetensors.index.json'
    index.write_text(json.dumps({'weight_map': places}))
    for source in (tmp_path / 'shards', index):
        (file,) = check([source]).files
        assert [part.name.rpartition('/')[2] for part in file.parts] == [index.name, *dict.fromkeys(places.values())]
        assert file.kinds == ['autoencoder'] and not file.troubles
    (tmp_path / 'shards' / 'model-00002-of-00002.safetensors').unlink()
    (file,) = check([index]).files
    assert file.troubles == ['model-00002-of-00002.safetensors: No such file or directory']


def test_a_file_of_nothing_known_is_told_by_its_names(tmp_path):
    tensors = {f'module.{n:02}.w': np.zeros(2, np.float32) for n in range(30)}
    save_file(tensors, tmp_path / 'other.safetensors')
    report = check([tmp_path / 'other.safetensors'])
    (file,) = report.files
    assert (file.kinds, file.tensors, file.dtypes) == ([], 30, {'float32': 30})
    assert len(file.examples) == 20 and {*file.examples} <= tensors.keys()
    assert report.troubles == ['other.safetensors holds none of the files we know']


def test_our_own_folders_are_no_published_files(tiny_folder):
    assert check([tiny_folder]).troubles == [
        'tiny holds none of the files we know: it is a folder that st2v_jax wrote, not a published one'
    ]


def test_nothing_there_is_an_error():
    with pytest.raises(FileNotFoundError, match='there is no file or folder missing'):
        check(['missing'])


def test_what_no_table_knows_stands_with_the_network_that_is_named_alike(exported, tmp_path):
    tensors = load_file(exported / 'streaming_t2v.safetensors')
    odd = {
        'base_model.down_blocks.0.resnets.0.extra': 'unet',
        'base_model.cross_attention_merger_mid_block.temporal_transformer.extra': 'cam',
        'resampler.context_embedding.0.extra': 'apm',
        'text_encoder.extra': 'text',
    }
    gone = {'image_encoder.model.visual.proj_extra': 'image'}
    save_file(tensors | {name: np.zeros(1, np.float16) for name in odd | gone}, tmp_path / 'a.safetensors')
    shutil.copy(exported / 'model_index.json', tmp_path)
    report = check([tmp_path])
    told = {name: network.name for network in report.networks for name in network.unknown}
    assert told == odd | gone


def test_a_fused_tensor_that_is_missing_is_one(exported, tmp_path):
    tensors = load_file(exported / 'streaming_t2v.safetensors')
    name = 'image_encoder.model.visual.transformer.resblocks.0.attn.in_proj_weight'
    del tensors[name]
    save_file(tensors, tmp_path / 'a.safetensors')
    shutil.copy(exported / 'model_index.json', tmp_path)
    report = check([tmp_path])
    assert network_of(report, 'image').missing == [name] and report.problems() == {('tensor', 'missing'): 1}


def test_beside_a_streaming_model_a_video_ldm_draws_the_first_chunk(exported, tmp_path):
    shutil.copytree(exported / 'unet', tmp_path / 'ms' / 'unet')
    report = check([exported, tmp_path / 'ms'])
    used = {(network.name, report.files[network.file - 1].name) for network in report.networks if network.used}
    assert {('unet', 'exported/streaming_t2v.safetensors')} | {
        ('initial', 'ms/unet/diffusion_pytorch_model.safetensors')
    } <= used
    assert report.problems() == {}


def test_files_that_are_right_alone_and_not_together(exported, tmp_path):
    text = load_file(exported / 'text_encoder' / 'model.safetensors')
    wider = {name: np.zeros([32 if n == 16 else n for n in a.shape], np.float16) for name, a in text.items()}
    (tmp_path / 'clip').mkdir()
    save_file(wider, tmp_path / 'clip' / 'model.safetensors')
    report = check([exported, tmp_path / 'clip'])
    assert report.problems() == {('disagreement', 'between files'): 1}
    assert report.disagreements == ['the UNet reads text of width 16, the text tower gives 32']
    assert not report.makes_a_model()


def test_settings_and_copies_are_listed(exported, tmp_path):
    shutil.copytree(exported / 'unet', tmp_path / 'ms' / 'unet')
    (tmp_path / 'ms' / 'unet' / 'diffusion_pytorch_model.fp16.bin').write_bytes(b'not read')
    report = check([tmp_path / 'ms'])
    assert report.settings == ['ms/unet/config.json']
    assert report.not_read == ['ms/unet/diffusion_pytorch_model.fp16.bin']


@pytest.mark.parametrize('container', ['safetensors', 'zip'])
def test_a_file_needs_the_memory_of_one_tensor(container, tmp_path):
    rows = np.zeros((512, 1024), np.float32)
    tensors = {'encoder.conv_in.weight': rows} | {f'{n}': rows.T for n in range(15)}  # transposed ones are copied
    path = tmp_path / ('a.safetensors' if container == 'safetensors' else 'a.ckpt')
    if container == 'safetensors':
        files.safetensors(path, {name: np.ascontiguousarray(a) for name, a in tensors.items()})
    else:
        files.checkpoint('zip', path, tensors)
    check([path])  # what is imported and compiled comes first
    tracemalloc.start()
    try:
        check([path])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    pieces = 8 * 2**20  # those of `numbers`, in float64, and the head that the digest is of
    assert most < rows.nbytes + pieces < path.stat().st_size / 3


def test_what_is_checked_is_what_is_opened(exported):
    """A file without a problem is one that the rest of the program reads."""
    assert check([exported]).problems() == {}
    assert open_model(exported).params(['vae'])
