"""Chunks that a gate draws again: what is kept and stored, what a killed run goes on to, and what the commands say."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from st2v_jax import video_io
from st2v_jax.errors import OutOfRange
from st2v_jax.sessions.branches import Recipe
from st2v_jax.sessions.session import Session, Taken
from st2v_jax.sessions.verification import EQUAL, of_session
from st2v_jax.streaming import gate, stream
from st2v_jax.streaming.gate import OFF, Gate
from st2v_jax.streaming.prompt_schedule import PromptSchedule
from st2v_jax.video_io.start import Start

PROMPT, OTHER, FRAMES = 'a red ball moves left', 'a blue star over sand', 56  # 6 chunks
WARN, REROLL = Gate('warn'), Gate('reroll', 3)


@pytest.fixture(autouse=True)
def half(monkeypatch):
    """Replaces the scores: a function of the new frames alone, by which half of the draws have a fault."""

    def scores(frames, before=None):
        return {'cut': 2 * gate.LIMITS['cut'] * float(1e4 * np.abs(frames).mean() % 1)}

    monkeypatch.setattr(gate, 'scores', scores)


@pytest.fixture
def make(quick, model, tmp_path):
    """make(name, gate, ...) -> a session with a branch of 6 chunks, what it told in .told."""

    def make(name, gate, frames=FRAMES, start=None, **changes):
        told = []
        folder = tmp_path / name
        session = Session(folder, model) if folder.exists() else Session.create(folder, model)
        session.tell = told.append
        asked = {'prompts': PromptSchedule(PROMPT), 'seed': 7} | changes
        session.start(
            Recipe(0, negative_prompt='', settings=model.settings(steps=2), gate=gate, **asked),
            num_frames=frames,
            start=start,
        )
        session.told = told
        return session

    return make


def finished(session):
    list(session.extend())
    return session


def files(session):
    return {file.stem: file.read_bytes() for file in (session.folder / 'chunks').iterdir()}


def video(session, name='main'):
    return np.concatenate([*session.frames(name)])


def trials(session):
    """{number of chunk: its entry in the journal} of chunks whose first draw had a fault."""
    return {entry['number']: entry for entry in session.journal() if 'draws' in entry}


def test_off_and_warn_make_the_same_chunks_and_warn_tells(make):
    off, warned = finished(make('off', OFF)), finished(make('warn', WARN))
    assert files(off) == files(warned) and not off.told and not trials(off)
    assert 'gate' not in (off.folder / 'branches' / 'main.json').read_text()
    assert 1 < len(warned.told) < 6 and all(line.endswith('; it is kept') for line in warned.told)
    assert len(trials(warned)) == len(warned.told)


def test_the_best_draw_is_kept_and_all_are_in_the_journal(make):
    session = finished(make('ball', REROLL))
    branch, found = session.branch(), trials(session)
    assert len(branch.chunks) == len(branch.draws) == 6 and any(branch.draws) and 0 in branch.draws
    for number, entry in found.items():
        scored = [draw['cut'] for draw in entry['draws']]
        assert entry['kept'] == branch.draws[number] == int(np.argmin(scored))
        assert scored[0] > gate.LIMITS['cut'] and (scored[-1] <= gate.LIMITS['cut'] or len(scored) == 4)
    assert [number in found for number in range(6)] == [
        len({entry['chunk'] for entry in session.journal() if entry.get('number') == number and 'chunk' in entry}) > 1
        for number in range(6)
    ]
    assert len(session.told) == len(found)
    for number, draw in enumerate(branch.draws):
        assert session.chunk(branch.chunks[number]).inputs.get('draw', 0) == draw


def test_chunks_before_the_first_fault_are_those_without_a_gate(make):
    off, session = finished(make('off', OFF)), finished(make('ball', REROLL))
    first = next(number for number, draw in enumerate(session.branch().draws) if draw)
    assert off.branch().chunks[:first] == session.branch().chunks[:first]
    assert not {*off.branch().chunks[first:]} & {*session.branch().chunks}
    assert {id: file for id, file in files(off).items() if id in files(session)}.items() <= files(session).items()


@pytest.mark.parametrize('stop', range(1, 26, 6))
def test_a_run_that_is_stopped_at_any_step_goes_on_to_the_same_bytes(make, quick, stop):
    alone = finished(make('alone', REROLL))
    drawn = len(quick.made)
    quick.made.clear()
    for count, _ in enumerate(make('ball', REROLL).extend(), 1):
        if count == stop:
            break
    session = finished(make('ball', REROLL))
    assert files(session) == files(alone) and session.branch() == alone.branch()
    np.testing.assert_array_equal(video(session), video(alone))
    assert len(quick.made) == drawn, 'no draw that is stored is made twice'


def test_a_kill_between_a_draw_and_its_branch_changes_nothing(make, quick):
    session = finished(make('ball', REROLL))
    before, branch, drawn = files(session), session.branch(), len(quick.made)
    file = session.folder / 'branches' / 'main.json'
    values = json.loads(file.read_text())
    for count in (5, 2, 0):
        file.write_text(json.dumps(values | {'chunks': values['chunks'][:count], 'draws': values['draws'][:count]}))
        again = finished(make('ball', REROLL))
        assert again.branch() == branch and files(again) == before and len(quick.made) == drawn


def test_after_a_prune_the_kept_draw_is_known_and_made_again_if_damaged(make, quick):
    session = finished(make('ball', REROLL))
    before, ids, draws = files(session), session.branch().chunks, session.branch().draws
    session.prune()
    assert files(session).keys() == {*ids}
    number = next(number for number, draw in enumerate(draws) if draw)
    (session.folder / 'chunks' / f'{ids[number]}.safetensors').unlink()
    quick.made.clear()
    finished(make('ball', REROLL))
    assert quick.made == [number] and files(session) == {id: before[id] for id in ids}
    assert [verdict[:2] for verdict in of_session(session, 'main', range(6))] == [(i, EQUAL) for i in range(6)]


def test_a_session_is_found_again_with_its_gate_only(make):
    session = make('ball', REROLL)
    assert session.branch().recipes[0].gate == REROLL and make('ball', REROLL).branch().recipes[0].gate == REROLL
    for other in (OFF, WARN, Gate('reroll', 2)):
        with pytest.raises(Taken, match='steps, guidance .*, drawn again up to 3 times$'):
            make('ball', other)
    assert make('other', OFF) and make('other', WARN).branch().recipes[0].gate == WARN, 'frames do not depend on it'


def test_branches_share_what_was_decided(make, quick):
    session = finished(make('ball', REROLL))
    draws, drawn = session.branch().draws, len(quick.made)
    fork = session.fork('main', 3, prompts=PromptSchedule(OTHER))
    assert fork.draws == draws[:3] and fork.recipes[-1].gate == REROLL
    list(session.extend(fork.name))
    made = session.branch(fork.name)
    assert made.chunks[:3] == session.branch().chunks[:3] and len(made.draws) == 6 and len(quick.made) > drawn
    again, drawn = session.start(*session.branch().recipes, num_frames=FRAMES, name='again'), len(quick.made)
    list(session.extend(again.name))
    assert session.branch('again').chunks == session.branch().chunks and len(quick.made) == drawn


def test_a_gate_from_a_chunk_on_leaves_the_chunks_before(make):
    session = finished(make('ball', OFF, frames=40))
    session.append('main', gate=REROLL, num_frames=FRAMES)
    list(session.extend())
    draws = session.branch().draws
    assert len(draws) == 6 and not any(draws[:3]) and any(draws[3:])
    session.append('main', gate=OFF, num_frames=FRAMES + 16)
    list(session.extend())
    assert session.branch().draws == draws and len(session.branch().chunks) == 8
    assert [verdict.verdict for verdict in of_session(session, 'main', range(8))] == 8 * [EQUAL]


@pytest.mark.parametrize('is_picture', [False, True])
def test_what_follows_given_frames_is_drawn_again_too(make, quick, is_picture):
    frames = np.random.default_rng(1).integers(0, 256, (1 if is_picture else 9, 32, 32, 3), np.uint8)
    session = finished(make('ball', REROLL, start=Start(frames, is_picture=is_picture)))
    assert any(session.branch().draws) and len(quick.made) > 6
    drawn = len(quick.made)
    again = finished(make('ball', REROLL, start=Start(frames, is_picture=is_picture)))
    assert again.branch() == session.branch() and len(quick.made) == drawn
    assert {verdict.verdict for verdict in of_session(session, 'main')} == {EQUAL}


def test_numbers_that_are_not_finite_are_drawn_again(make, quick, monkeypatch):
    finish, failing = stream.finished, [(1, 1), (3, 2), (4, 9)]  # (chunk, how often)
    left = dict(failing)

    def finished_or_not(system, settings, params, x, state):
        if left.get(int(state.index)):
            left[int(state.index)] -= 1
            raise OutOfRange(f'chunk {state.index} is not finite')
        return finish(system, settings, params, x, state)

    monkeypatch.setattr(stream, 'finished', finished_or_not)
    monkeypatch.setattr(gate, 'scores', lambda frames, before=None: {'cut': 1.0})
    session = make('ball', REROLL)
    with pytest.raises(OutOfRange, match='chunk 4 is not finite'):
        list(session.extend())
    assert session.branch().draws == (0, 1, 0, 2) and len(files(session)) == 4
    assert [line.split(';')[0] for line in session.told] == [
        f'chunk {n} has numbers that are not finite' for n in (1, 3)
    ]


def sample(st2v, *words):
    options = ('--num-frames', FRAMES, '--steps', 2, '--session', 'ball', '--quiet')
    return st2v('sample', '--prompt', PROMPT, *options, *words)


def test_the_command_says_each_fault_in_a_line_and_finds_its_session(st2v, quick):
    code, _, err = sample(st2v, '--gate', 'reroll')
    lines = err.splitlines()
    session = Session('ball')
    assert code == 0 and len(lines) == len(trials(session))
    assert all(line.startswith('warning: chunk ') and '; drawn again ' in line for line in lines)
    about, written = video_io.read_metadata('ball/main.mp4')['session'], Path('ball/main.mp4').read_bytes()
    assert about['draws'] == [*session.branch().draws] and about['chunks'] == [*session.branch().chunks]
    assert about['recipes'][0]['gate'] == {'action': 'reroll', 'tries': 3}
    drawn = len(quick.made)
    assert sample(st2v, '--gate', 'reroll')[::2] == (0, '') and len(quick.made) == drawn
    shutil.rmtree('ball')
    assert sample(st2v, '--gate', 'reroll')[0] == 0 and Path('ball/main.mp4').read_bytes() == written


def test_another_gate_is_refused_with_the_line_that_branches(st2v):
    assert sample(st2v, '--gate', 'reroll', '--gate-tries', 2)[0] == 0
    code, _, err = sample(st2v)
    assert code == 2 and 'drawn again up to 2 times' in err
    line = err.split('a branch has room for this: ')[1]
    assert line.endswith('--gate=off\n') and st2v(*shlex.split(line)[1:], '--quiet')[0] == 0
    assert Session('ball').branch('main-0').recipes[0].gate.redraws == 0


def test_a_file_of_kept_draws_is_verified_by_making_those_again(st2v, quick, tiny_folder):
    assert sample(st2v, '--gate', 'reroll')[0] == 0
    quick.made.clear()
    code, out, err = st2v('verify', 'ball/main.mp4', '--weights', tiny_folder)
    assert (code, err) == (0, '') and out == ''.join(f'chunk {n}: equal\n' for n in range(6))
    assert quick.made == [*range(6)], 'the kept ones only'


def test_session_verbs_go_on_with_the_gate_or_change_it(st2v):
    assert sample(st2v, '--gate', 'reroll')[0] == 0
    assert st2v('session', 'extend', 'ball', '--num-frames', FRAMES + 16, '--quiet')[0] == 0
    assert len(Session('ball').branch().draws) == 8
    again = sum(map(bool, Session('ball').branch().draws))
    assert (
        f'main: 8 chunks, {FRAMES + 16} frames asked for, {again} of them drawn again'
        in st2v('session', 'show', 'ball')[1]
    )
    words = ('session', 'branch', 'ball', '--from', 2, '--gate', 'warn', '--name', 'warned')
    code, _, err = st2v(*words, '--quiet')
    assert code == 0 and '; it is kept' in err and Session('ball').branch('warned').recipes[-1].gate == WARN


@pytest.mark.parametrize('words', [('--gate-tries', 2), ('--gate-tries', 2, '--gate', 'warn')])
def test_tries_go_with_a_gate_that_draws_again(st2v, words):
    assert (
        sample(st2v, *words) == (2, '', 'error: --gate-tries goes with --gate reroll\n') and not Path('ball').exists()
    )
