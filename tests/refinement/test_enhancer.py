"""The enhancement of whole videos: every frame comes back, larger, with its aspect, in bounded memory."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import st2v_jax
from st2v_jax import errors
from st2v_jax.refinement.enhancer import texts_of_chunks
from st2v_jax.streaming.prompt_schedule import Text
from st2v_jax.weights.layout import abstract

pytestmark = pytest.mark.usefixtures('unoptimised')
PROMPT = 'a red ball moves left'


@pytest.fixture(scope='module')
def enhancer(tiny_folder):
    return st2v_jax.load_enhancer(tiny_folder)


def moving(frames=7, size=(32, 32)):
    """uint8 [n, H, W, 3]: a bright square moves over a dark ground. 7 frames are two chunks of the tiny model."""
    video = np.full((frames, *size, 3), 40, np.uint8)
    for number, frame in enumerate(video):
        frame[8:16, number % 20 : number % 20 + 8] = (220, 90, 60)
    return video


def run(enhancer, video=None, prompt=PROMPT, **options):
    pieces = list(st2v_jax.enhance(enhancer, moving() if video is None else video, prompt, **options))
    assert all(piece.dtype == np.float32 and np.abs(piece).max() <= 1 for piece in pieces)
    return np.concatenate(pieces)


@pytest.mark.parametrize(
    'frames, size, enhanced', [(7, (32, 32), (48, 48)), (7, (24, 64), (30, 80)), (1, (9, 8), (48, 42))]
)
def test_every_frame_comes_back_as_large_as_the_box_allows(enhancer, frames, size, enhanced):
    assert run(enhancer, moving(frames, size)).shape == (frames, *enhanced, 3)
    assert enhancer.canvas(size).size == enhanced


def test_a_seed_repeats_a_video_however_its_frames_come(enhancer):
    video = moving()
    once = run(enhancer, video)
    np.testing.assert_array_equal(run(enhancer, iter([video[:1], video[1:6], video[6:]])), once)
    np.testing.assert_allclose(run(enhancer, video / np.float32(127.5) - 1), once, atol=1e-4)
    np.testing.assert_allclose(run(enhancer, video, decode_frames=3), once, atol=1e-4)
    assert np.abs(run(enhancer, video, seed=1) - once).max() > 1e-3


def test_text_and_negative_prompt_reach_the_video(enhancer):
    plain = run(enhancer)
    for change in ({'prompt': 'a blue star'}, {'negative_prompt': 'sand'}):
        assert np.abs(run(enhancer, **change) - plain).max() > 1e-5


def test_chunks_take_the_prompt_in_force_at_their_middle_frame(enhancer):
    plan = enhancer.settings().plan(31)  # chunks of 6 frames at 0, 4, ... 24 and 25
    changing = st2v_jax.PromptSchedule('A', ((12, 'B'), (20, 'C')))
    for contract, prompts in ((None, 'AAABBCCC'), (enhancer.config.contract, 'AAAABBCC')):  # which begin at 16 and 24
        distinct, texts = texts_of_chunks(changing, contract, plan)
        assert ''.join(distinct[text].prompt for text in texts) == prompts
    assert texts_of_chunks(changing, None, enhancer.settings().plan(6)) == ([Text('A')], None)


@pytest.mark.slow
def test_prompts_that_change_reach_their_chunks(enhancer):
    video, apart = moving(10), {'variant': 'B'}  # chunks at 0 and 4, which know nothing of each other
    plain, other = run(enhancer, video, **apart), run(enhancer, video, 'a blue star', **apart)
    changed = run(enhancer, video, st2v_jax.PromptSchedule(PROMPT, ((7, 'a blue star'),)), **apart)
    np.testing.assert_allclose(changed[:6], plain[:6], atol=1e-5)
    np.testing.assert_allclose(changed[6:], other[6:], atol=1e-5)
    blended = run(enhancer, video, st2v_jax.PromptSchedule(PROMPT, ((7, 'a blue star'),), 8), **apart)[6:]
    assert min(np.abs(blended - one[6:]).max() for one in (plain, other)) > 1e-5


def test_the_refiner_reads_the_prompt_and_a_comma(enhancer):
    read = []

    class Spy:
        def ids(self, texts):
            read.extend(texts)
            return enhancer.tokenizer.ids(texts)

    st2v_jax.enhance(dataclasses.replace(enhancer, tokenizer=Spy()), moving(), PROMPT, negative_prompt='sand')
    assert read == ['sand', f'{PROMPT}, ']


def test_numbers_out_of_range_end_it_and_nothing_stays_behind(enhancer, tmp_path):
    for network, what in (('vae', 'the latents of the frames'), ('refiner', 'the latents after step 1')):
        endless = jax.tree.map(lambda leaf: leaf * np.float32(np.nan), enhancer.params[network])
        broken = dataclasses.replace(enhancer, params=enhancer.params | {network: endless})
        with pytest.raises(errors.OutOfRange, match=f'^{what} are not finite in float32$'):
            run(broken, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_chunks_spread_over_devices_give_the_same_video(enhancer, tiny_folder):
    two = st2v_jax.load_enhancer(tiny_folder, devices=2)
    assert two.settings().group == 2
    np.testing.assert_allclose(run(two), run(enhancer), atol=1e-3)


def test_steps_are_reported_in_order_and_nothing_stays_behind(enhancer, tmp_path):
    seen, sizes = [], set()

    def on_step(*step):
        seen.append(step)
        sizes.add(sum(file.stat().st_size for file in tmp_path.rglob('x*')))

    run(enhancer, folder=tmp_path, on_step=on_step)
    assert seen == [(1, 2), (2, 2)]
    assert sizes == {enhancer.scratch_bytes(enhancer.settings(), (32, 32), 7)}, 'known before the work'
    stopped = st2v_jax.enhance(enhancer, moving(), PROMPT, folder=tmp_path)
    next(stopped)
    assert list(tmp_path.iterdir())
    stopped.close()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_error_that_names_the_file_and_nothing_stays_behind(enhancer, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'posix_fallocate', full)
    with pytest.raises(OSError, match='No space left on device') as error:
        run(enhancer, folder=tmp_path)
    assert tmp_path in Path(error.value.filename).parents and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'options, rule',
    [
        ({'prompt': '  '}, 'the prompt is empty'),
        ({'seed': -1}, 'a seed is between 0 and'),
        ({'steps': 0}, 'sampled in 1 to 599 steps, not 0'),
        ({'start': 1000}, 'start is between 1 and 999, not 1000'),
        ({'overlap': 4}, 'chunks of 6 frames overlap by 1 to 3, not 4'),
        ({'profile': 'draft'}, "profile is one of .* not 'draft'"),
        ({'variant': 'S'}, "variant is one of .* not 'S'"),
        ({'decode_frames': 0}, 'at least 1 frame is decoded'),
        ({'colour': 'red'}, 'unknown settings .*colour'),
    ],
)
def test_the_impossible_is_refused_before_anything_is_computed(enhancer, options, rule):
    with pytest.raises(ValueError, match=rule):
        st2v_jax.enhance(enhancer, moving(), **{'prompt': PROMPT, **options})


@pytest.mark.parametrize('frames', [[], moving(0), [moving(2), moving(2, (16, 32))], moving()[0], moving()[..., :1]])
def test_what_is_not_a_video_is_refused(enhancer, frames):
    with pytest.raises(ValueError, match=r'at least 1 frame, not 0|arrays \[n, H, W, 3\] of one size, not'):
        run(enhancer, frames)


def test_a_refiner_may_have_an_autoencoder_and_a_text_tower_of_its_own(tiny_config, tiny_params, tiny_folder, tmp_path):
    own = dataclasses.replace(
        tiny_config.refiner,
        vae=tiny_config.vae,
        text=dataclasses.replace(tiny_config.text, vocab_size=49408),
        scale_factor=0.5,
    )
    config = dataclasses.replace(tiny_config, refiner=own)
    tower = abstract(config, ('refiner_text',))['refiner_text']
    rows = np.zeros(tower['tokens']['embedding'].shape, np.float32)
    text = tiny_params['text'] | {'tokens': {'embedding': rows}}
    params = {'refiner': tiny_params['refiner'], 'refiner_vae': tiny_params['vae'], 'refiner_text': text}
    st2v_jax.save_weights(tmp_path, config, params)
    enhancer = st2v_jax.load_enhancer(tmp_path)
    assert enhancer.config.scale_factor == 0.5 and enhancer.tokenizer.pad == 0
    assert enhancer.params['text']['tokens']['embedding'].shape == rows.shape


def test_a_model_without_a_refiner_and_too_few_devices_are_refused(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / 'streaming')
    (folder / 'refiner.safetensors').unlink()
    with pytest.raises(errors.WeightsError, match='the weights in .*:\n  refiner.safetensors: missing'):
        st2v_jax.load_enhancer(folder)
    with pytest.raises(ValueError, match='there are 8 devices to spread chunks over, not 9'):
        st2v_jax.load_enhancer(tiny_folder, devices=9)


TOYS = '''
"""Enhances videos of several lengths with toy networks; prints the most anonymous memory of each, in MB."""
import dataclasses, threading
import jax.numpy as jnp
import numpy as np
from einops import reduce, repeat
from st2v_jax.models import build
from st2v_jax.models.refiner import RefinerConfig
from st2v_jax.refinement.enhancer import Enhancer, enhance
from st2v_jax.refinement.sdedit import Refiner
from st2v_jax.tokenizer import Tokenizer

def vae(params, x, method):
    if method == 'encode':
        return jnp.tile(reduce(x, 'n (h a) (w b) c -> n h w c', 'mean', a=8, b=8), 16), None
    return repeat(x[..., :3], 'n h w c -> n (h a) (w b) c', a=8, b=8)

def unet(params, *args, method=None):
    return () if method else jnp.concatenate([jnp.tanh(args[0])] * 2)

config = build.ModelConfig(refiner=RefinerConfig(vae=None, text=None, box=(130, 224), steps=2))
enhancer = Enhancer(config, Tokenizer(), {'refiner': {}, 'vae': {}, 'text': {}}, Refiner(unet), vae,
                    lambda params, ids: ids)

def anonymous():
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) for line in file if line.startswith('RssAnon')) / 1000

def watch():
    global most
    while not over.wait(0.02):
        most = max(most, anonymous())

for count in COUNTS:
    over, most = threading.Event(), 0.0
    watcher = threading.Thread(target=watch)
    watcher.start()
    frames = (np.full((1, 65, 112, 3), number % 256, np.uint8) for number in range(count))
    got = sum(len(piece) for piece in enhance(enhancer, frames, 'a ball', span=2))
    over.set()
    watcher.join()
    assert got == count
    print(most)
'''


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='measured by what Linux says about a process')
def test_memory_does_not_grow_with_the_video():
    """2,200 frames are enhanced after 1,200, in one process.

    Each of the four copies of their latents would take 91 MB more, and the enhanced frames 350 MB more. Latents in
    files are not counted, because the system can drop them.
    """
    program = TOYS.replace('COUNTS', '(1200, 2200)')
    # Otherwise glibc keeps freed memory for each of many threads, and in the heap, as it raises its threshold for mmap.
    plain = os.environ | {'XLA_FLAGS': '', 'MALLOC_ARENA_MAX': '1', 'MALLOC_MMAP_THRESHOLD_': '131072'}
    done = subprocess.run([sys.executable, '-c', program], env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    short, long = map(float, done.stdout.split())
    assert long < short + 40, f'{short} MB became {long} MB'
