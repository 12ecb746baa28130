"""`sample --session`, `st2v session` and `st2v verify`: what they make, and each refusal in one line."""

import errno
import json
import re
import shlex
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from st2v_jax import stopping, video_io
from st2v_jax.cli.run import main
from st2v_jax.sessions import chunks
from st2v_jax.sessions.about import writing
from st2v_jax.sessions.session import Session
from st2v_jax.storage import lock
from st2v_jax.streaming import stream

PROMPT, OTHER = 'a red ball moves left', 'a blue star over sand'


def sample(st2v, *words, prompt=PROMPT, frames=40, **options):
    words = ('--session', 'ball', '--quiet', *words)
    return st2v('sample', '--prompt', prompt, '--num-frames', frames, '--steps', '2', *words, **options)


def error(result, code=2):
    """The one line of a failure."""
    assert result[0] == code, result
    (line,) = result[2].splitlines()
    return line


def stored():
    return {file.name: file.read_bytes() for file in Path('ball', 'chunks').iterdir()}


def test_a_video_is_made_once_and_its_file_says_what_it_is(st2v, quick):
    assert sample(st2v)[0] == 0
    assert video_io.read_video('ball/main.mp4').shape == (40, 32, 32, 3)
    about = video_io.read_metadata('ball/main.mp4')
    assert (about['prompt'], about['seed'], about['num_frames']) == (PROMPT, 0, 40)
    assert about['session']['chunks'] == [*Session('ball').branch().chunks]
    assert about['session']['made_by'][0]['from'] == 0 and len(about['session']['made_by']) == 1
    assert about['session']['made_by'][0]['programs']['jax'] == jax.__version__
    assert 'time' not in json.dumps(about) and 'ball/' not in json.dumps(about), 'neither times nor places'
    written = Path('ball/main.mp4').read_bytes()
    code, out, _ = st2v('sample', '--prompt', PROMPT, '--num-frames', 40, '--steps', '2', '--session', 'ball')
    assert code == 0 and out.endswith('ball/main.mp4 is complete: ball, main\n') and quick.made == [0, 1, 2, 3]
    assert Path('ball/main.mp4').read_bytes() == written
    assert st2v('session', 'export', 'ball', '--output', 'again.mp4', '--quiet')[0] == 0
    assert Path('again.mp4').read_bytes() == written, 'an exported file is a function of its chunks'


def test_a_run_that_is_stopped_says_what_is_stored_and_goes_on(st2v, quick, monkeypatch):
    def stop_in_chunk_2():
        if len([*Path('ball', 'chunks').glob('[0-9a-f]*')]) == 2:
            raise stopping.Stopped(stopping.signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(stopping, 'check', stop_in_chunk_2)
        line = error(sample(st2v), 143)
    assert line.startswith('stopped: 2 chunks are in ball; again: st2v sample --prompt') and len(stored()) == 2
    _, again = line.split('again: ')
    assert main(shlex.split(again)[1:]) == 0
    assert quick.made == [0, 1, 2, 3]
    shutil.move('ball', 'stopped')
    assert sample(st2v)[0] == 0
    assert Path('ball/main.mp4').read_bytes() == Path('stopped/main.mp4').read_bytes()


def test_a_kill_between_a_chunk_and_its_branch_loses_no_frame(st2v, quick):
    sample(st2v)
    file = Path('ball', 'branches', 'main.json')
    values, written = json.loads(file.read_text()), Path('ball/main.mp4').read_bytes()
    for chunks_listed in (3, 1, 0):
        file.write_text(json.dumps(values | {'chunks': values['chunks'][:chunks_listed]}))
        Path('ball/main.mp4').unlink()
        assert sample(st2v)[0] == 0
        assert Path('ball/main.mp4').read_bytes() == written and quick.made == [0, 1, 2, 3]


@pytest.mark.parametrize(
    'given, line',
    [
        ({'prompt': OTHER}, "--prompt='a blue star over sand'"),
        ({'words': ('--seed', '9')}, "--prompt='a red ball moves left' --seed=9"),
        ({'words': ('--steps', '3', '--guidance-text', '4')}, '--steps=3 --guidance-text=4'),
        ({'words': ('--negative-prompt', 'sand')}, '--negative-prompt=sand'),
        ({'words': ('--at', '24', OTHER)}, "--at 24 'a blue star over sand'"),
    ],
    ids=str,
)
def test_another_prompt_or_setting_is_refused_with_the_line_that_branches(st2v, quick, given, line):
    assert sample(st2v)[0] == 0
    before = stored()
    words = given.get('words', ())
    told = error(sample(st2v, *words, prompt=given.get('prompt', PROMPT)))
    assert told.startswith('error: ball was asked for something else: "a red ball moves left", seed 0, 2 steps')
    _, command = told.split('a branch has room for this: ')
    assert command.startswith('st2v session branch ball --from 0 --prompt=') and line in command
    assert stored() == before
    assert st2v(*shlex.split(command)[1:], '--quiet')[0] == 0, 'the line works'
    branch = Session('ball').branch('main-0')
    assert len(branch.chunks) == 4 and before.items() <= stored().items()
    there = quick.made[4:]
    assert there == ([2, 3] if '--at' in words else [0, 1, 2, 3])


def test_verbs_make_branches_and_say_how_to_see_them(st2v, quick):
    sample(st2v)
    before = stored()
    assert st2v('session', 'extend', 'ball', '--num-frames', 56, '--quiet')[0] == 0
    assert quick.made == [0, 1, 2, 3, 4, 5]
    code, out, _ = st2v('session', 'reroll', 'ball', '--from', 4)
    assert code == 0 and quick.made[6:] == [4, 5]
    see = 'st2v session export ball --branch main-4-seed1'
    assert out.endswith(f'main-4-seed1 has 6 chunks; its video: {see}\n')
    assert st2v('session', 'branch', 'ball', '--from', 5, '--name', 'night', '--prompt', OTHER, '--quiet')[0] == 0
    assert quick.made[8:] == [5] and before.items() <= stored().items()
    assert st2v(*see.split()[1:], '--output', 'b.gif', '--quiet')[0] == 0
    assert video_io.read_video('b.gif').shape == (56, 32, 32, 3)

    code, out, _ = st2v('session', 'show', 'ball', '--sheet', 'sheet.png')
    assert code == 0 and Path('sheet.png').stat().st_size
    assert re.search(r'^ball: 32x32, float32, .*tiny\n', out)
    assert re.search(r'^main: 6 chunks, 56 frames asked for, made in \d+\.\d s until \d{4}-', out, re.M)
    assert re.search(r'^main-4-seed1: 6 chunks, 4 of them shared with main, ', out, re.M)
    assert re.search(rf'^night: 6 .* with main, .*\n  from chunk 5: "{OTHER}", seed 0, 2 steps$', out, re.M)

    assert st2v('session', 'prune', 'ball', '--branch', 'night')[1] == 'removed 1 chunks (0.0 MB)\n'
    assert Session('ball').names() == ['main', 'main-4-seed1']


def test_a_full_disk_is_one_line_and_nothing_is_lost(st2v, quick, monkeypatch):
    write = chunks.safetensors.write

    def full(file, *arguments, **options):
        if len(stored()) == 2:
            raise OSError(errno.ENOSPC, 'No space left on device')  # write() names no file
        write(file, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(chunks.safetensors, 'write', full)
        line = error(sample(st2v), 1)
    assert line.startswith('error: ball: No space left on device; 2 chunks are in ball; again: st2v sample ')
    assert sample(st2v)[0] == 0 and quick.made == [0, 1, 2, 2, 3]
    assert st2v('verify', 'ball')[0] == 0


def test_a_session_that_is_read_only_can_be_seen_but_not_changed(st2v, monkeypatch):
    sample(st2v)

    def read_only(name):
        raise OSError(errno.EROFS, 'Read-only file system')

    monkeypatch.setattr(lock, '_open', read_only)
    assert error(st2v('session', 'extend', 'ball')) == 'error: cannot write ball: Read-only file system'
    assert error(sample(st2v)) == 'error: cannot write ball: Read-only file system'
    assert st2v('session', 'show', 'ball')[0] == st2v('session', 'verify', 'ball')[0] == 0


def test_two_processes_on_one_session_are_refused(st2v):
    sample(st2v)
    with writing('ball'):
        for words in (('extend', 'ball'), ('reroll', 'ball', '--from', '1'), ('prune', 'ball')):
            assert error(st2v('session', *words)) == 'error: another run is writing ball'
        assert error(sample(st2v)) == 'error: another run is writing ball'
        assert st2v('session', 'show', 'ball')[0] == 0


def test_a_damaged_chunk_is_told_and_made_again(st2v, quick):
    sample(st2v)
    before = stored()
    ids = Session('ball').branch().chunks
    file = Path('ball', 'chunks', f'{ids[2]}.safetensors')
    file.write_bytes(b'damaged')
    assert error(st2v('session', 'export', 'ball', '--quiet', '--output', 'x.mp4')).startswith(
        f'error: chunk {ids[2][:8]} is damaged: '
    )
    code, out, err = st2v('verify', 'ball')
    assert code == 1 and 'chunk 2: damaged\n' in out and 'error: ball: chunk 2 is damaged' in err
    code, _, err = sample(st2v)
    assert code == 0 and err == f'warning: chunk {ids[2][:8]} is damaged: {file}; chunk 2 is made again\n'
    assert stored() == before and quick.made[-1] == 2


def test_another_version_of_jax_goes_on_with_one_line(st2v, monkeypatch):
    sample(st2v)
    monkeypatch.setattr('jax.__version__', '9.9')
    code, _, err = sample(st2v, frames=56)
    assert code == 0 and re.fullmatch(
        r'warning: from chunk 4 on frames are those of an undisturbed run up to rounding only: jax .* then, 9.9 now\n',
        err,
    )
    made_by = video_io.read_metadata('ball/main.mp4')['session']['made_by']
    assert [one['from'] for one in made_by] == [0, 4] and made_by[1]['programs']['jax'] == '9.9'


def test_other_weights_are_refused(st2v, tiny_folder, tmp_path):
    sample(st2v)
    other = shutil.copytree(tiny_folder, tmp_path / 'other')
    data = bytearray((other / 'unet.safetensors').read_bytes())
    data[-1] ^= 1
    (other / 'unet.safetensors').write_bytes(data)
    told = r'error: ball was made with other weights \(unet differ\): those of .*tiny'
    assert re.fullmatch(told, error(sample(st2v, weights=other)))
    assert re.match(told, error(st2v('session', 'extend', 'ball', '--weights', other, '--quiet')))
    line = error(st2v('verify', 'ball/main.mp4', '--weights', other))
    assert line == 'error: ball/main.mp4 was made with other weights: --weights names them'


@pytest.mark.parametrize('output', ['x.mp4', 'x.gif', 'frames/'])
def test_a_file_is_verified_by_making_it_again(st2v, quick, tiny_folder, output, monkeypatch):
    sample(st2v)
    st2v('session', 'export', 'ball', '--output', output, '--quiet')
    code, out, _ = st2v('verify', output, '--weights', tiny_folder)
    assert code == 0 and out == ''.join(f'chunk {number}: equal\n' for number in range(4))
    quick.made.clear()
    code, out, _ = st2v('verify', output, '--weights', tiny_folder, '--chunks', '1')
    assert code == 0 and out == 'chunk 1: equal\n' and quick.made == [0, 1], 'only as far as needed'
    _change(monkeypatch, 0.5)
    code, out, err = st2v('verify', output, '--weights', tiny_folder)
    assert code == 1 and 'chunk 0: different by ' in out and 'is different' in err


def test_a_file_whose_seed_changes_on_the_way_is_verified(st2v, quick, tiny_folder):
    sample(st2v)
    assert st2v('session', 'reroll', 'ball', '--from', 2, '--name', 'again', '--quiet')[0] == 0
    st2v('session', 'export', 'ball', '--branch', 'again', '--output', 'again.mp4', '--quiet')
    code, out, _ = st2v('verify', 'again.mp4', '--weights', tiny_folder)
    assert code == 0 and out == ''.join(f'chunk {number}: equal\n' for number in range(4))


@pytest.mark.parametrize('by, code, verdict', [(1e-4, 0, 'equal up to rounding'), (0.5, 1, 'different')])
def test_a_session_is_verified_chunk_by_chunk(st2v, quick, monkeypatch, by, code, verdict):
    sample(st2v)
    quick.made.clear()
    assert st2v('session', 'verify', 'ball')[1] == 'chunk 0: equal\nchunk 2: equal\nchunk 3: equal\n'
    assert quick.made == [0, 2, 3], 'each from the chunks before it'
    _change(monkeypatch, by)
    found, out, _ = st2v('session', 'verify', 'ball', '--chunks', '1')
    assert found == code and out.startswith(f'chunk 1: {verdict} by ')


def _change(monkeypatch, by):
    """From now on latents come out a little different."""
    before = stream.denoised

    def denoised(*inputs):
        for step, steps, made in before(*inputs):
            noise = np.random.default_rng(0).standard_normal(made.x.shape, made.x.dtype)
            yield step, steps, made._replace(x=made.x + by * noise)

    monkeypatch.setattr(stream, 'denoised', denoised)


@pytest.mark.parametrize(
    'words, told',
    [
        (('verify', 'plain.mp4'), 'plain.mp4 has no manifest of a session: st2v session export writes one'),
        (('verify', 'nothing.mp4'), 'cannot read nothing.mp4: No such file or directory'),
        (('verify', 'ball', '--chunks', '1,4'), 'main has 4 chunks, which are numbered from 0: there is no 4'),
        (('session', 'show', 'plain'), 'plain is not a session: there is no session.json in it'),
        (('session', 'branch', 'ball', '--from', '9', '--prompt', OTHER), 'there is no 9'),
        (('session', 'branch', 'ball', '--from', '1', '--at', '24', OTHER), '--at goes with --prompt'),
        (('session', 'export', 'ball', '--branch', 'x'), 'there is no branch x in ball; it has main'),
        (('session', 'prune', 'ball', '--branch', 'main'), 'main is what the session is about'),
        (('session', 'extend', 'ball', '--prompt', ' '), 'the prompt is empty'),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_one_line(st2v, words, told):
    sample(st2v)
    Path('plain').mkdir()
    with video_io.VideoWriter('plain.mp4', 8, (32, 32)) as file:
        file.write(np.zeros((2, 32, 32, 3)))
    quiet = ['--quiet'] if words[:2] in (('session', 'branch'), ('session', 'extend'), ('session', 'export')) else []
    assert told in error(st2v(*words, *quiet))


@pytest.mark.parametrize(
    'harm', [{'recipes': []}, {'recipes': 3}, {'dtype': 'int8'}, {'made_by': []}, {'chunks': ['x']}, None], ids=str
)
def test_a_damaged_manifest_is_one_line(st2v, tiny_folder, harm):
    sample(st2v)
    about = video_io.read_metadata('ball/main.mp4')
    about['session'] = harm and about['session'] | harm
    with video_io.VideoWriter('x.mp4', 8, (32, 32), about) as file:
        file.write(np.zeros((2, 32, 32, 3)))
    assert error(st2v('verify', 'x.mp4', '--weights', tiny_folder)).startswith(
        'error: the manifest in x.mp4 is damaged'
    )


def test_options_that_do_not_go_together_are_refused(st2v):
    assert '--enhance does not go with --session' in error(sample(st2v, '--enhance'))
    assert '--shard goes with --prompts-file and --session' in error(sample(st2v, '--shard', '1/2'))
    assert not Path('ball').exists()


def test_many_prompts_go_on_where_they_stopped_and_shards_share_them(st2v, quick):
    Path('prompts.txt').write_text('\n'.join([PROMPT, OTHER, 'a blue ball', 'a red star']))
    words = ('sample', '--prompts-file', 'prompts.txt', '--session', 'all', '--num-frames', 16, '--steps', 2, '--quiet')
    assert st2v(*words, '--shard', '2/3')[0] == 0
    assert [path.name for path in sorted(Path().glob('all-*'))] == ['all-001']
    assert len(quick.made) == 1
    assert st2v(*words, '--shard', '1/3')[0] == 0 and len(quick.made) == 3
    assert st2v(*words)[0] == 0 and len(quick.made) == 4, 'what is complete is not repeated'
    assert [video_io.read_metadata(f'all-00{i}/main.mp4')['prompt'] for i in range(4)] == [
        PROMPT,
        OTHER,
        'a blue ball',
        'a red star',
    ]
    Path('prompts.txt').write_text('\n'.join([OTHER, OTHER]))
    assert 'all-000/ was asked for something else' in error(st2v(*words)).replace('all-000 ', 'all-000/ ')
