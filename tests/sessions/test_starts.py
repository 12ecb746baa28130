"""Videos that start from a clip or a picture, and frames of another size: `st2v sample`, with and without a session."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from st2v_jax import stopping, video_io
from st2v_jax.cli.run import main
from st2v_jax.sessions.session import Session
from st2v_jax.streaming import generate
from st2v_jax.video_io.pictures import read_picture

PROMPT = ('--prompt', 'a red ball moves left', '--steps', 2, '--quiet')


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch):
    monkeypatch.setattr(generate, 'encode', lambda model, told, null: [told.ids, told.following, null])


def frames(path):
    return video_io.read_video(path)


def clip(name, count=12, size=(32, 32), seed=0):
    """A clip of noise, kept exactly."""
    made = np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8)
    with video_io.VideoWriter(name, 8, size) as video:
        video.write(made)
    return made


def picture(name, size=(32, 32), seed=1):
    made = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(made).save(name)
    return made[None]


START = {'clip/': clip, 'one.png': picture}


def error(result, code=2):
    """The one line of a failure."""
    assert result[0] == code, result
    (line,) = result[2].splitlines()
    return line


@pytest.mark.parametrize('session', [(), ('--session', 'ball')], ids=['alone', 'session'])
def test_a_clip_leads_the_video_that_goes_on_from_it(st2v, quick, session):
    given = clip('clip/')
    words = ('sample', *PROMPT, '--num-frames', 20, '--start', 'clip/', *session)
    assert st2v(*words, '--output', 'all/')[0] == 0
    np.testing.assert_array_equal(frames('all/')[: len(given)], given)
    assert len(frames('all/')) == len(given) + 20 and quick.made == [0, 1, 2], 'each chunk has 8 new frames'
    assert st2v(*words, '--output', 'new/', '--only-new')[0] == 0
    np.testing.assert_array_equal(frames('new/'), frames('all/')[len(given) :])


def test_a_picture_belongs_to_the_first_chunk(st2v, quick):
    picture('one.png')
    words = ('sample', *PROMPT, '--num-frames', 24, '--start', 'one.png')
    assert st2v(*words, '--output', 'alone/')[0] == 0
    assert st2v(*words, '--session', 'ball', '--output', 'all/')[0] == 0
    assert len(frames('all/')) == 24 and quick.made == 2 * [0, 1], '16 and 8 frames'
    np.testing.assert_array_equal(frames('all/'), frames('alone/'))
    assert st2v(*words[:-2], '--output', 'text/')[0] == 0
    assert (frames('text/')[0] != frames('all/')[0]).any()


def test_what_is_given_decides_what_comes(st2v):
    made = {}
    clip('clip/'), clip('changed/', seed=5), picture('look.png', seed=9), picture('still.png', seed=9)
    for name, words in {
        'plain clip': ('--start', 'clip/'),
        'changed clip': ('--start', 'changed/'),
        'anchor': ('--start', 'clip/', '--anchor', 'look.png'),
        'picture': ('--start', 'look.png'),
        'text': (),
    }.items():
        assert st2v('sample', *PROMPT, '--num-frames', 8, *words, '--session', name)[0] == 0
        made[name] = Session(name).branch().chunks
    assert len({*made.values()}) == 5
    st2v('sample', *PROMPT, '--num-frames', 8, '--start', 'still.png', '--session', 'again')
    assert Session('again').branch().chunks == made['picture'], 'pixels count, not names'


@pytest.mark.parametrize('stop_at', range(2))
@pytest.mark.parametrize('start', START)
def test_a_run_that_is_stopped_goes_on_bit_for_bit(st2v, quick, monkeypatch, start, stop_at):
    START[start](start)
    words = ('sample', *PROMPT, '--num-frames', 24, '--start', start)
    assert st2v(*words, '--session', 'whole')[0] == 0

    def stop():
        if Path('ball/branches/main.json').exists() and len([*Path('ball/chunks').glob('[0-9a-f]*')]) == stop_at:
            raise stopping.Stopped(stopping.signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(stopping, 'check', stop)
        line = error(st2v(*words, '--session', 'ball'), 143)
    assert main(shlex.split(line.split('again: ')[1])[1:]) == 0
    assert quick.made == 2 * [*range(len(quick.made) // 2)], 'nothing is made twice'
    assert Path('ball/main.mp4').read_bytes() == Path('whole/main.mp4').read_bytes()
    for part in ('chunks', 'given'):
        one, other = (
            {file.name: file.read_bytes() for file in Path(name, part).iterdir()} for name in ('ball', 'whole')
        )
        assert one == other


def test_branches_have_the_start_of_their_origin_and_it_leads_their_files(st2v, quick):
    given = clip('clip/')
    st2v('sample', *PROMPT, '--num-frames', 16, '--start', 'clip/', '--session', 'ball')
    assert st2v('session', 'reroll', 'ball', '--from', 0, '--name', 'other', '--quiet')[0] == 0
    assert st2v('session', 'export', 'ball', '--branch', 'other', '--output', 'all/', '--quiet')[0] == 0
    assert st2v('session', 'export', 'ball', '--branch', 'other', '--output', 'new/', '--only-new', '--quiet')[0] == 0
    np.testing.assert_array_equal(frames('all/'), np.concatenate([given, frames('new/')]))
    assert st2v('session', 'extend', 'ball', '--num-frames', 32, '--quiet')[0] == 0
    assert st2v('session', 'verify', 'ball')[1].count(': equal\n') == 3
    assert 'only its session has: verify that one' in error(st2v('verify', 'ball/main.mp4'))
    assert st2v('session', 'prune', 'ball')[0] == 0 and len([*Path('ball/given').iterdir()]) == 1


def test_a_session_has_one_start(st2v, quick):
    clip('clip/'), clip('other/', seed=5)
    words = ('sample', *PROMPT, '--num-frames', 8, '--session', 'ball')
    assert st2v(*words, '--start', 'clip/')[0] == st2v(*words, '--start', 'clip/')[0] == 0 and quick.made == [0]
    for other in (('--start', 'other/'), ()):
        assert error(st2v(*words, *other)).startswith('error: ball starts from other frames: another start has a ')
    words = (*words[:-1], 'text')
    assert st2v(*words)[0] == 0
    assert error(st2v(*words, '--start', 'clip/')).startswith('error: text starts from text alone: another start has')


@pytest.mark.parametrize('harm', [lambda file: file.write_bytes(b'damaged'), Path.unlink], ids=['damaged', 'missing'])
def test_given_frames_that_are_damaged_are_one_line(st2v, harm):
    clip('clip/')
    st2v('sample', *PROMPT, '--num-frames', 8, '--start', 'clip/', '--session', 'ball')
    (file,) = Path('ball/given').iterdir()
    harm(file)
    line = error(st2v('session', 'export', 'ball', '--output', 'x.mp4', '--quiet'))
    assert line.startswith('error: what the video starts from is ') and line.endswith(f'{file}')
    assert st2v('session', 'export', 'ball', '--output', 'x.mp4', '--only-new', '--quiet')[0] == 0


@pytest.mark.parametrize('size, shape', [('48x32', (48, 32)), ('16x64', (16, 64)), ('16', (16, 16))])
def test_frames_may_have_another_size(st2v, quick, tiny_folder, size, shape):
    words = ('sample', *PROMPT, '--num-frames', 24)
    assert st2v(*words, '--size', size, '--output', 'alone/')[0] == 0
    assert st2v(*words, '--size', size, '--session', 'ball', '--output', 'all/')[0] == 0
    assert frames('all/').shape == (24, *shape, 3)
    np.testing.assert_array_equal(frames('all/'), frames('alone/'))
    assert st2v('session', 'extend', 'ball', '--num-frames', 32, '--quiet')[0] == 0, 'a session knows its size'
    assert st2v('verify', 'all/', '--weights', tiny_folder)[1] == 'chunk 0: equal\nchunk 1: equal\n'
    told = f'ball was made at {shape[0]}x{shape[1]}, not at 32x32: --size {shape[0]}x{shape[1]} goes on'
    assert error(st2v(*words, '--session', 'ball')) == f'error: {told}'
    picture('one.png', (64, 64))
    assert st2v(*words, '--size', size, '--start', 'one.png', '--output', 'led/')[0] == 0
    assert frames('led/').shape == (24, *shape, 3)


def short(name):
    clip('short/', 7)


def dot(name):
    picture('dot.png', (1, 1))


@pytest.mark.parametrize('session', [(), ('--session', 'ball')], ids=['alone', 'session'])
@pytest.mark.parametrize(
    'make, words, told',
    [
        (None, ('--start', 'nothing.mp4'), 'cannot read nothing.mp4: there is no such file or folder'),
        (short, ('--start', 'short/'), 'short/ has 7 frames at 8 per second, and a video goes on from at least 8'),
        (dot, ('--start', 'dot.png'), 'dot.png has 1x1 pixels; a start has at least 16 in each direction'),
        (None, ('--size', '40x32'), 'frames of this model have multiples of 16 pixels, not 40x32'),
        (None, ('--size', '33'), 'frames of this model have multiples of 16 pixels, not 33x33'),
        (None, ('--size', '8x32'), 'frames of this model have multiples of 16 pixels, not 8x32'),
        (None, ('--only-new',), '--only-new goes with --start'),
        (None, ('--crop',), '--crop goes with --start'),
        (None, ('--anchor', 'dot.png'), '--anchor goes with --start'),
        (
            None,
            ('--start', 'x.png', '--anchor', 'y.png'),
            '--anchor goes with a clip: a picture is the first frame itself',
        ),
        (None, ('--start', 'x.JPG', '--only-new'), '--only-new goes with a clip: a picture is the first frame itself'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, tuple) else '',
)
def test_what_makes_no_sense_is_one_line_before_any_work(st2v, quick, make, words, told, session):
    if make:
        make(words)
    there = {*Path().rglob('*')}
    assert error(st2v('sample', *PROMPT, '--num-frames', 8, *words, *session)) == f'error: {told}'
    assert {*Path().rglob('*')} == there and not quick.made


@pytest.mark.parametrize('words', [('clip/', '--output', 'clip'), ('one.png', '--output', './one.png')], ids=str)
def test_what_a_video_starts_from_is_not_replaced(st2v, words):
    given = START[words[0]](words[0])
    line = error(st2v('sample', *PROMPT, '--num-frames', 8, '--start', *words))
    assert line == f'error: {words[-1]} is what the video starts from: choose another --output'
    np.testing.assert_array_equal(frames(words[0]) if words[0] == 'clip/' else read_picture(words[0])[None], given)


def test_a_size_that_does_not_divide_is_refused_by_a_plan_too(st2v):
    assert error(st2v('sample', *PROMPT, '--size', '100', '--plan')).endswith('multiples of 16 pixels, not 100x100')
