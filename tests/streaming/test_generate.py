"""The functions of the public API: load a model once, generate videos of exactly the frames asked for."""

import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import st2v_jax
from st2v_jax.cli.run import main
from st2v_jax.trees import flatten

pytestmark = pytest.mark.usefixtures('unoptimised')
PROMPT = 'a red ball moves left'


@pytest.fixture(scope='module')
def model(tiny_folder):
    return st2v_jax.load(tiny_folder)


def video(model, prompt=PROMPT, num_frames=20, **options):
    kept = {name: options.pop(name) for name in ('seed', 'negative_prompt', 'on_step') if name in options}
    return list(st2v_jax.generate(model, prompt, num_frames, settings=model.settings(steps=2, **options), **kept))


@pytest.mark.parametrize('num_frames, chunks', [(1, [1]), (16, [16]), (17, [16, 1]), (29, [16, 8, 5])])
def test_exactly_the_frames_asked_for(model, num_frames, chunks):
    frames = video(model, num_frames=num_frames)
    assert [part.shape for part in frames] == [(n, 32, 32, 3) for n in chunks]
    assert all(part.dtype == np.float32 and np.abs(part).max() <= 1 for part in frames)


def test_a_seed_repeats_a_video_and_a_longer_one_begins_alike(model):
    short, again, long = video(model), video(model), video(model, num_frames=29)
    np.testing.assert_array_equal(np.concatenate(short), np.concatenate(again))
    np.testing.assert_array_equal(np.concatenate(short), np.concatenate(long)[:20])
    assert np.abs(np.concatenate(short) - np.concatenate(video(model, seed=1))).max() > 1e-3


@pytest.mark.parametrize(
    'change', [{'prompt': 'a blue star'}, {'negative_prompt': 'sand'}, {'guidance_text': 5.0}], ids=str
)
def test_text_negative_prompt_and_guidance_reach_the_video(model, change):
    (plain,), (changed,) = video(model, num_frames=1), video(model, num_frames=1, **change)
    assert np.abs(plain - changed).max() > 1e-5


def test_several_prompts_at_once(model):
    (frames,) = video(model, [PROMPT, 'a blue star'], num_frames=5)
    assert frames.shape == (2, 5, 32, 32, 3)
    assert np.abs(frames[0] - frames[1]).max() > 1e-3


@pytest.mark.slow
def test_float16_makes_the_same_video(model, tiny_folder):
    (exact,), (coarse,) = video(model, num_frames=1), video(st2v_jax.load(tiny_folder, 'float16'), num_frames=1)
    assert 0 < np.abs(coarse - exact).mean() < 0.05


def test_a_seed_may_be_any_integer(model):
    (plain,), (numpys,) = video(model, num_frames=1, seed=3), video(model, num_frames=1, seed=np.uint32(3))
    np.testing.assert_array_equal(plain, numpys)


def test_steps_are_reported_in_order(model):
    seen = []
    video(model, on_step=lambda *step: seen.append(step))
    assert seen == [(0, 1, 2), (0, 2, 2), (1, 1, 2), (1, 2, 2)]


@pytest.mark.parametrize(
    'options, rule',
    [
        ({'prompt': '  '}, 'the prompt is empty'),
        ({'prompt': []}, 'the prompt is empty'),
        ({'num_frames': 0}, 'at least 1 frame, not 0'),
        ({'seed': -1}, 'a seed is between 0 and'),
        ({'seed': [1, 2]}, '1 prompts need as many seeds, or a state of 1 videos, not 2'),
    ],
)
def test_the_impossible_is_refused_before_anything_is_computed(model, options, rule):
    with jax.disable_jit(), pytest.raises(ValueError, match=rule):
        st2v_jax.generate(model, **{'prompt': PROMPT, **options})


@pytest.mark.parametrize(
    'changes, rule',
    [
        ({'steps': 0}, 'at least 1'),
        ({'steps': 1000}, 'not 1000'),
        ({'profile': 'draft'}, "profile is one of .* not 'draft'"),
        ({'colour': 'red'}, 'unknown settings .*colour'),
    ],
)
def test_impossible_settings_are_refused(model, changes, rule):
    with pytest.raises(ValueError, match=rule):
        model.settings(**changes)


def test_a_batch_holds_the_videos_that_its_prompts_make_alone(model):
    both = np.concatenate(video(model, [PROMPT, 'a blue star'], seed=[0, 3]), 1)
    for i, (prompt, seed) in enumerate([(PROMPT, 0), ('a blue star', 3)]):
        np.testing.assert_allclose(both[i], np.concatenate(video(model, prompt, seed=seed)), atol=1e-4)


def test_a_stream_goes_on_from_a_kept_state_also_with_another_prompt(model):
    settings = model.settings(steps=2)
    whole = np.concatenate(video(model, num_frames=32))
    first, state = next(st2v_jax.stream(model, PROMPT, settings=settings))
    kept = st2v_jax.StreamState.from_arrays(state.to_arrays())
    second, _ = next(st2v_jax.stream(model, PROMPT, state=kept, settings=settings))
    np.testing.assert_array_equal(np.concatenate([first, second]), whole[:24])
    other, _ = next(st2v_jax.stream(model, 'a blue star', state=kept, settings=settings))
    assert np.abs(other - second).max() > 1e-5
    with pytest.raises(ValueError, match='a state of 2 videos, not 1'):
        st2v_jax.stream(model, [PROMPT] * 2, state=kept)


def test_a_prompt_that_changes_is_that_of_the_chunks_from_then_on(model):
    settings = model.settings(steps=2)
    first, state = next(st2v_jax.stream(model, PROMPT, settings=settings))
    second, state = next(st2v_jax.stream(model, 'a blue star', state=state, settings=settings))
    third, _ = next(st2v_jax.stream(model, 'sand', state=state, settings=settings))
    changing = st2v_jax.PromptSchedule(PROMPT, ((10, 'a blue star'), (24, 'sand')))
    whole = np.concatenate(video(model, changing, num_frames=32))
    np.testing.assert_array_equal(whole, np.concatenate([first, second, third]))
    again, _ = next(st2v_jax.stream(model, changing, state=state, settings=settings))
    np.testing.assert_array_equal(again, third, 'a schedule goes on from a state too')

    blended = np.concatenate(video(model, dataclasses.replace(changing, blend_frames=8), num_frames=24))
    np.testing.assert_array_equal(blended[:16], first)
    plain = np.concatenate(video(model, num_frames=24))[16:]
    assert min(np.abs(blended[16:] - other).max() for other in (plain, second)) > 1e-6


def test_parameters_are_loaded_as_they_are_computed_with(tiny_folder):
    half = st2v_jax.load(tiny_folder, dtype=jax.numpy.bfloat16)
    params = flatten(half.params)
    for name, leaf in params.items():
        added = name.endswith('/bias') and f'{name.removesuffix("bias")}kernel' in params  # norms have no kernel
        assert leaf.dtype == jax.numpy.dtype('bfloat16' if leaf.ndim > 1 or added else 'float32'), name


def test_the_table_of_contents_is_complete_and_loads_late():
    assert all(getattr(st2v_jax, name) is not None for name in st2v_jax.__all__)
    assert set(st2v_jax.__all__) <= set(dir(st2v_jax))
    with pytest.raises(AttributeError, match='st2v_jax has no pipeline'):
        _ = st2v_jax.pipeline
    heavy = (
        'import st2v_jax, st2v_jax.cli.sample, st2v_jax.cli.enhance, sys\n'
        'print({"jax", "transformers", "av", "torch"} & set(sys.modules))'
    )
    done = subprocess.run([sys.executable, '-c', heavy], capture_output=True, text=True, check=True)
    assert done.stdout == 'set()\n'


def test_sampling_imports_no_other_framework(tiny_folder):
    """transformers imports torch if it is installed; nothing else may, and nothing imports the training extras."""
    program = (
        'import sys; sys.modules["torch"] = None\n'
        f'import st2v_jax; st2v_jax.load({str(tiny_folder)!r}).tokenizer.ids(["a red ball"])\n'
        'print({"tensorflow", "tensorflow_datasets", "grain", "tensorboardX", "orbax", "cv2"} & set(sys.modules))'
    )
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.stdout == 'set()\n', done.stderr


def test_a_video_ldm_alone_makes_one_chunk(tiny_folder, tmp_path):
    for name in ('config.json', 'words.json', 'vae.safetensors', 'text.safetensors', 'unet.safetensors'):
        shutil.copy(tiny_folder / name, tmp_path)
    alone = st2v_jax.load(tmp_path)
    (frames,) = video(alone, num_frames=16)
    (whole,) = video(st2v_jax.load(tiny_folder), num_frames=16)
    np.testing.assert_array_equal(frames, whole)
    with pytest.raises(ValueError, match='without CAM and APM there is one chunk of 16 frames, not 17'):
        st2v_jax.generate(alone, PROMPT, 17)


def test_the_command_says_how_many_frames_there_are(tiny_folder, tmp_path, capsys):
    for name in ('config.json', 'words.json', 'vae.safetensors', 'text.safetensors', 'unet.safetensors'):
        shutil.copy(tiny_folder / name, tmp_path)
    assert main(['sample', '--prompt', PROMPT, '--weights', str(tmp_path), '--num-frames', '17']) == 2
    rule = 'this model has no CAM and APM, so it makes at most 16 frames, not 17'
    assert capsys.readouterr().err == f'error: {rule}\n'


def test_a_unet_of_its_own_generates_the_first_chunk(tiny_folder, tiny_config, tiny_params, tmp_path, model):
    config = dataclasses.replace(tiny_config, initial=True)
    other = jax.tree.map(lambda leaf: 0.9 * leaf, tiny_params['unet'])
    shutil.copytree(tiny_folder, tmp_path / 'same')
    shutil.copytree(tiny_folder, tmp_path / 'other')
    st2v_jax.save_weights(tmp_path / 'same', config, {'initial': tiny_params['unet']})
    st2v_jax.save_weights(tmp_path / 'other', config, {'initial': other})
    plain = video(model, num_frames=17)
    same, first = (video(st2v_jax.load(tmp_path / name), num_frames=17) for name in ('same', 'other'))
    np.testing.assert_array_equal(np.concatenate(plain), np.concatenate(same))
    assert np.abs(plain[0] - first[0]).max() > 1e-3


@pytest.mark.parametrize('page', ['README.md', 'docs/using.md'])
def test_python_on_the_pages_runs(page, model, monkeypatch, tmp_path):
    """With the tiny model and fewer frames."""
    text = (Path(__file__).parents[2] / page).read_text('utf-8')
    (code,) = re.findall(r'```python\n(.*?)```', text, re.S)
    monkeypatch.setattr(st2v_jax, 'load', lambda: model, raising=False)
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace('240', '17').replace('steps=10', 'steps=2'), page, 'exec'), {})
    assert list(tmp_path.iterdir())
