"""How outputs are named, and that a run replaces and deletes only what it made."""

import os
from pathlib import Path

import numpy as np
import pytest

from st2v_jax import video_io
from st2v_jax.cli import outputs, sample
from st2v_jax.cli.run import main
from st2v_jax.errors import OutputError
from st2v_jax.storage.lock import Busy, locked

MOVING = np.zeros((2, 16, 16, 3)) + [[[[0]]], [[[1]]]]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def files():
    return sorted(file.name for file in Path().iterdir())


def unused(name):
    with outputs.unused(name) as free:
        return free


def test_a_name_that_is_taken_gets_a_number():
    assert unused('star-0.mp4') == 'star-0.mp4'
    Path('star-0.mp4').touch()
    Path('star-0-2.mp4').symlink_to('nowhere')  # what is written there would appear elsewhere
    with locked('star-0-3.mp4'):
        assert unused('star-0.mp4') == 'star-0-4.mp4'
    with outputs.unused('moon-0.mp4') as first, outputs.unused('moon-0.mp4') as second:
        assert (first, second) == ('moon-0.mp4', 'moon-0-2.mp4'), 'two prompts of one run, or of two'
    assert files() == ['star-0-2.mp4', 'star-0.mp4']


def test_a_name_that_another_run_just_finished_is_taken(monkeypatch):
    """It was free when it was looked at, and its lock was free after that run."""
    lock = outputs.locked

    def finished(name):
        if name == 'star.mp4':
            Path(name).touch()
        return lock(name)

    monkeypatch.setattr(outputs, 'locked', finished)
    assert unused('star.mp4') == 'star-2.mp4'


@pytest.mark.parametrize('letter', ['a', 'é', '球', '🎈'])
def test_a_numbered_name_is_no_longer_than_a_name_can_be(letter):
    name = (letter * (251 // len(letter.encode()))) + '.mp4'
    Path(name).touch()
    free = unused(name)
    assert free.startswith(letter) and free.endswith('-2.mp4') and len(free.encode()) <= 255
    draft = outputs.Draft(name)
    draft.check()
    with draft:
        assert draft.make().endswith('draft.mp4')
        draft.remove()
    assert files() == [name]


@pytest.mark.parametrize(
    'output, third',
    [
        ('clip.mp4', 'clip-002.mp4'),
        ('a.b/clip.gif', 'a.b/clip-002.gif'),
        ('clip.png', 'clip-002.png'),
        ('clip-%03d.png', 'clip-%03d-002.png'),
        ('frames/', 'frames-002/'),
        ('there', 'there-002/'),
        ('.', './002/'),
        ('./', './002/'),
        ('..', '../002/'),
        ('there/..', 'there/../002/'),
        ('there/.', 'there/./002/'),
        ('/', '/002/'),
    ],
)
def test_the_output_of_a_prompt_has_its_number(output, third):
    Path('there').mkdir()
    assert outputs.numbered(output, 2) == third


@pytest.mark.parametrize(
    'output, draft',
    [
        ('star.mp4', 'star-draft.mp4'),
        ('a/star.gif', 'a/star-draft.mp4'),
        ('star.png', 'star-draft.mp4'),
        ('frames/', 'frames-draft.mp4'),
        ('.', './draft.mp4'),
        ('a/..', 'a/../draft.mp4'),
    ],
)
def test_a_draft_is_beside_its_output(output, draft):
    Path('a').mkdir()
    with outputs.Draft(output) as made:
        assert made.make() == draft
        assert os.path.getsize(draft) == 0


def test_a_file_with_the_name_of_a_draft_stays():
    for name in ('star-draft.mp4', 'star-draft-2.mp4'):
        Path(name).write_text('mine')
    with outputs.Draft('star.mp4') as draft:
        assert draft.make() == 'star-draft-3.mp4'
        with pytest.raises(Busy), outputs.claimed('star-draft-3.mp4'):
            pass
        with video_io.VideoWriter('star-draft-3.mp4', 8, (16, 16)) as video:
            video.write(MOVING)
        draft.remove()
    assert files() == ['star-draft-2.mp4', 'star-draft.mp4']
    assert Path('star-draft.mp4').read_text() == Path('star-draft-2.mp4').read_text() == 'mine'


@pytest.mark.parametrize('then', ['moved', 'replaced'])
def test_a_draft_that_the_user_took_away_is_not_removed(then):
    with outputs.Draft('star.mp4') as draft:
        draft.make()
        os.rename('star-draft.mp4', 'mine.mp4')
        if then == 'replaced':
            Path('star-draft.mp4').write_text('mine')
        draft.remove()
    assert files() == ['mine.mp4'] + ['star-draft.mp4'] * (then == 'replaced')


def test_a_draft_that_is_not_removed_stays():
    with outputs.Draft('star.mp4') as draft:
        draft.make()
    assert files() == ['star-draft.mp4'], 'without its lock'


@pytest.mark.parametrize(
    'one, other',
    [
        ('frames/', 'frames'),
        ('frames/', 'frames/frame.png'),
        ('frames/frame-%04d.png', 'frames/frame.png'),
        ('.', 'frame.png'),
        ('a.png', './a-%04d.png'),
        ('a.png', 'a-%03d.png'),
        ('link.mp4', 'star.mp4'),
    ],
)
def test_names_of_one_output_are_refused_together(one, other):
    Path('frames').mkdir()
    Path('link.mp4').symlink_to('star.mp4')
    with outputs.claimed(one), pytest.raises(Busy), outputs.claimed(other):
        pass
    with outputs.claimed(one), outputs.claimed('b.png'), outputs.claimed('star.gif'):
        pass
    assert files() == ['frames', 'link.mp4']


def test_a_folder_with_the_name_of_a_video_is_not_filled():
    Path('star.mp4').mkdir()
    with pytest.raises(OutputError, match='^cannot write star.mp4: it is a folder, .*/'), outputs.claimed('star.mp4'):
        pass
    with outputs.claimed('star.mp4/'):
        pass


@pytest.mark.parametrize(
    'name', ['a' * 252 + '.mp4', 'a' * 248 + '.png', 'a' * 256 + '/'], ids=['mp4', 'png', 'folder']
)
def test_a_name_that_is_too_long_is_refused(name):
    """The names of single frames are longer than that of the series."""
    with pytest.raises(OutputError, match='File name too long'), outputs.claimed(name):
        pass


@pytest.mark.parametrize('name', ['a' * 251 + '.gif', '球' * 83 + '.mp4'], ids=['gif', 'mp4'])
def test_the_longest_name_can_be_written(name):
    with outputs.claimed(name), video_io.VideoWriter(name, 8, (16, 16)) as video:
        video.write(MOVING)
    assert files() == [name] and len(video_io.read_video(name)) == 2


@pytest.mark.parametrize('ending', ['gif', 'mp4'])
@pytest.mark.parametrize('there', [True, False])
def test_a_link_stays_and_what_it_leads_to_is_written(ending, there):
    Path('big').mkdir()
    link, target = Path(f'star.{ending}'), Path(f'big/star.{ending}')
    link.symlink_to(target)
    if there:
        target.touch()
    with outputs.claimed(str(link)), video_io.VideoWriter(link, 8, (16, 16)) as video:
        video.write(MOVING)
    assert link.is_symlink() and not target.is_symlink() and len(video_io.read_video(target)) == 2
    assert files() == ['big', link.name] and [file.name for file in Path('big').iterdir()] == [target.name]


VERBS = {
    'convert': ['convert', '--from', 'nowhere', '--to'],
    'export': ['convert', '--from', 'nowhere', '--to-diffusers'],
    'prepare': ['prepare-data', '--videos', '.', '--output'],
    'report': ['evaluate', 'report', '--results', 'results.json', '--output'],
    'checker': ['evaluate', 'train-checker', '--tiny', '--checker'],
    'generate': ['evaluate', 'generate', '--checker', 'checker.npz', '--out'],
    'refine': ['evaluate', 'refine', '--out'],
    'train': ['train', '--config', 'autoencoder:tiny', '--workdir'],
}


@pytest.mark.parametrize('verb', VERBS)
def test_every_verb_refuses_what_another_run_is_writing_and_what_it_cannot_write(verb, capsys):
    Path('captions.jsonl').write_text('{"file": "a.mp4", "caption": "a"}\n')
    with locked('runs/mine'):
        before = files()
        assert main([*VERBS[verb], 'runs/../runs/mine']) == 2
        assert capsys.readouterr().err == 'error: another run is writing runs/../runs/mine\n'
        assert files() == before and [file.name for file in Path('runs').iterdir()] == ['.mine.st2v-lock']
    for output in ('captions.jsonl/mine', 'loop/mine', 'a' * 256):
        Path('loop').symlink_to('loop')
        assert main([*VERBS[verb], output]) == 2
        assert capsys.readouterr().err.startswith(f'error: cannot write {output}: ')
        Path('loop').unlink()
    assert files() == ['captions.jsonl']


@pytest.mark.parametrize(
    'prompt, slug',
    [
        ('A red ball, moves/left!', 'a-red-ball-moves-left'),
        ('a' * 70, 'a' * 60),
        ('é' * 70, 'é' * 30),
        ('球' * 70, '球' * 20),
        ('𠀋' * 70, '𠀋' * 15),
        ('a' * 59 + '球', 'a' * 59),
        ('🔴', 'video'),
    ],
)
def test_default_names_are_cut_by_bytes(prompt, slug):
    assert sample._slug(prompt) == slug
