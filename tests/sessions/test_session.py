"""A session as functions: what is shared, what is made once, what goes on, and what is refused."""

import dataclasses
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from st2v_jax.errors import OutputError
from st2v_jax.models.system import system
from st2v_jax.sessions import chunks, fingerprint
from st2v_jax.sessions.about import writing
from st2v_jax.sessions.branches import Recipe
from st2v_jax.sessions.chunks import Damaged
from st2v_jax.sessions.session import Session, SessionError, Taken
from st2v_jax.streaming.generate import load
from st2v_jax.streaming.prompt_schedule import PromptSchedule

PROMPT, OTHER = 'a red ball moves left', 'a blue star over sand'


def recipe(model, prompt=PROMPT, *changes, seed=7, **settings):
    return Recipe(0, PromptSchedule(prompt, changes), '', seed, model.settings(steps=2, **settings))


@pytest.fixture
def session(quick, model, tmp_path):
    session = Session.create(tmp_path / 'ball', model, tell=pytest.fail)
    session.start(recipe(model), num_frames=40)
    return session


def files(session):
    return {file.stem: file.read_bytes() for file in (session.folder / 'chunks').iterdir()}


def video(session, name='main'):
    return np.concatenate([*session.frames(name)])


def test_a_video_that_is_gone_on_with_is_that_of_a_run_left_alone(session, quick, model, tmp_path):
    for step in session.extend():
        if step[:2] == (2, 1):
            break  # in the middle of chunk 2
    assert quick.made == [0, 1]
    list(Session(session.folder, model).extend())
    assert quick.made == [0, 1, 2, 3], 'nothing is made twice'
    alone = Session.create(tmp_path / 'alone', model)
    alone.start(recipe(model), num_frames=40)
    frames = np.concatenate([step.frames for step in alone.extend() if step.frames is not None])
    assert files(alone) == files(session)
    np.testing.assert_array_equal(video(session), frames)
    assert frames.shape == (40, 32, 32, 3)


def test_a_memory_of_several_chunks_is_restored(quick, model, tmp_path):
    """With 5 new frames in a chunk and a memory of 11."""
    config = dataclasses.replace(model.config, memory=11)
    model = dataclasses.replace(model, config=config, system=system(config))
    alone = Session.create(tmp_path / 'alone', model)
    alone.start(recipe(model), num_frames=36)
    list(alone.extend())
    Session.create(tmp_path / 'ball', model).start(recipe(model), num_frames=36)
    for number in range(5):
        step = next(step for step in Session(tmp_path / 'ball', model).extend() if step.frames is not None)
        assert step.chunk == number
    assert files(Session(tmp_path / 'ball', model)) == files(alone)


def test_a_chunk_is_stored_before_its_frames_are_handed_out(session):
    for step in session.extend():
        if step.frames is not None:
            assert len(files(session)) == step.chunk + 1 == len(session.branch().chunks)


def test_a_thread_drives_it_and_stops_between_steps(session, model):
    stop, seen = threading.Event(), []

    def drive():
        for step in session.extend():
            seen.append(step)
            if len(seen) == 3:
                stop.set()
            if stop.is_set():
                return

    thread = threading.Thread(target=drive)
    thread.start()
    thread.join()
    assert [step[:3] for step in seen] == [(0, 1, 2), (0, 2, 2), (1, 1, 2)]
    assert len(files(session)) == 1


def test_a_reroll_shares_what_comes_before_and_makes_only_the_rest(session, quick):
    list(session.extend())
    before = files(session)
    quick.made.clear()
    branch = session.fork('main', 2, seed=session.unused_seed('main', 2))
    list(session.extend(branch.name))
    again = session.branch(branch.name)
    assert quick.made == [2, 3] and again.chunks[:2] == session.branch().chunks[:2]
    assert before.items() <= files(session).items() and len(files(session)) == 6
    np.testing.assert_array_equal(video(session)[:24], video(session, branch.name)[:24])
    assert not np.array_equal(video(session)[24:], video(session, branch.name)[24:])
    assert again.recipes[-1].seed == 8 and session.unused_seed('main', 2) == 9


def test_a_reroll_that_was_stopped_is_found_again(session):
    list(session.extend())
    branch = session.fork('main', 1, seed=session.unused_seed('main', 1))
    next(step for step in session.extend(branch.name) if step.frames is not None)
    assert session.unused_seed('main', 1) == 8
    assert session.fork('main', 1, seed=8).name == branch.name == 'main-1'


def test_the_same_is_never_computed_twice(session, quick, model):
    list(session.extend())
    quick.made.clear()
    there = session.fork('main', 0, name='again', negative_prompt='')
    list(session.extend(there.name))
    assert quick.made == [] and session.branch('again').chunks == session.branch().chunks
    spaced = session.start(recipe(model, 'A  red ball MOVES left'), num_frames=40)  # the same tokens
    assert list(session.extend(spaced.name)) == []


@pytest.mark.parametrize(
    'changes',
    [{'prompt': OTHER}, {'seed': 8}, {'guidance_text': 3.0}, {'guidance_anchor': 3.0}, {'profile': 'release'}],
    ids=str,
)
def test_all_that_frames_depend_on_is_in_the_id(session, model, changes):
    ids = session.planned(session.branch())
    other = session.start(recipe(model, **changes), num_frames=40, name='other')
    assert not {*ids} & {*session.planned(other)}
    with pytest.raises(Taken, match='ball was asked for something else: "a red ball moves left", seed 7, 2 steps'):
        session.start(recipe(model, **changes), num_frames=40)


def test_a_change_of_prompt_changes_the_ids_from_its_chunk_on(session, model):
    ids = session.planned(session.branch())
    other = session.planned(session.start(recipe(model, PROMPT, (24, OTHER)), num_frames=40, name='other'))
    assert [one == two for one, two in zip(ids, other, strict=True)] == [True, True, False, False]


def test_a_branch_is_made_longer_also_with_another_prompt(session, model, tmp_path):
    list(session.extend())
    session.append('main', num_frames=56, prompts=PromptSchedule(OTHER))
    list(session.extend())
    found = session.branch()
    assert [one.start for one in found.recipes] == [0, 4] and len(found.chunks) == 6
    assert session.chunk(found.chunks[3]).notes['prompt'] == PROMPT
    assert session.chunk(found.chunks[4]).notes['prompt'] == OTHER
    assert session.append('main', prompts=PromptSchedule(OTHER)).recipes == found.recipes, 'asked for twice'
    changed = Session.create(tmp_path / 'changed', model)
    changed.start(recipe(model, PROMPT, (40, OTHER)), num_frames=56)
    list(changed.extend())
    assert files(changed).keys() == files(session).keys(), 'a chunk knows its own prompt only'


@pytest.mark.parametrize('harm', ['cut', 'changed', 'empty', 'gone', 'other'])
@pytest.mark.parametrize('number', [0, 1, 3])
def test_a_damaged_chunk_is_made_again(session, quick, model, harm, number):
    list(session.extend())
    before, ids = files(session), session.branch().chunks
    file = chunks.path_of(session.folder / 'chunks', ids[number])
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    other = chunks.path_of(session.folder / 'chunks', ids[(number + 1) % 4]).read_bytes()
    harmed = {'cut': data[:-9], 'changed': data, 'empty': b'', 'gone': None, 'other': other}[harm]
    file.unlink() if harmed is None else file.write_bytes(harmed)
    with pytest.raises(Damaged, match=rf'^chunk {ids[number][:8]} is (damaged|missing): '):
        session.chunk(ids[number])
    told = []
    again = Session(session.folder, model, tell=told.append)
    quick.made.clear()
    list(again.extend())
    assert quick.made == [number] and files(session) == before
    wanted = f'chunk {ids[number][:8]} is damaged: {file}; chunk {number} is made again'
    assert told == ([] if harm == 'gone' else [wanted])


def test_other_programs_are_named_with_the_chunk_that_they_begin_with(session, model, monkeypatch):
    next(step for step in session.extend() if step.frames is not None)
    told = []
    other = Session(session.folder, model, decode_frames=1, tell=told.append)
    monkeypatch.setattr('jax.__version__', '9.9')
    list(other.extend())
    assert len(told) == 1
    assert told[0].startswith('from chunk 1 on frames are those of an undisturbed run up to rounding only: jax ')
    assert 'then, 9.9 now' in told[0] and 'decode_frames 4 then, 1 now' in told[0]
    runs = [entry['run']['decode_frames'] for entry in session.journal() if 'run' in entry]
    assert runs == [4, 1]


def test_other_weights_are_refused_with_what_differs(session, model, tiny_folder, tmp_path):
    other = shutil.copytree(tiny_folder, tmp_path / 'other')
    same = load(other)
    Session(session.folder, same)  # a copy is the same model
    data = bytearray((other / 'cam.safetensors').read_bytes())
    data[-1] ^= 1
    (other / 'cam.safetensors').write_bytes(data)
    with pytest.raises(SessionError, match=r'ball was made with other weights \(cam differ\): those of .*tiny$'):
        Session(session.folder, load(other))


def test_hashes_of_weights_are_remembered_by_size_and_time(session, model, monkeypatch):
    monkeypatch.setattr(fingerprint, '_hashed', lambda *_, **__: pytest.fail('a file was read again'))
    Session(session.folder, model)


def test_another_dtype_is_refused(session, tiny_folder):
    with pytest.raises(SessionError, match='was made in float32, not in float16: --dtype float32 goes on'):
        Session(session.folder, load(tiny_folder, np.float16))


def test_one_process_at_a_time(session):
    with (
        writing(session.folder),
        pytest.raises(OutputError, match='another run is writing .*ball$'),
        writing(session.folder),
    ):
        pass


def test_what_is_not_a_session_is_named(model, tmp_path):
    with pytest.raises(SessionError, match='nowhere is not a session: there is no session.json in it'):
        Session(tmp_path / 'nowhere')
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'mine.txt').write_text('mine')
    with pytest.raises(SessionError, match='full is not a session, and not empty'):
        Session.create(tmp_path / 'full', model)
    assert (tmp_path / 'full' / 'mine.txt').read_text() == 'mine'


@pytest.mark.parametrize('text', ['', '[]', '{"format": 1}', '{"format": 9, "weights": {}}', 'no'])
def test_a_session_that_is_damaged_is_one_line(session, text):
    (session.folder / 'session.json').write_text(text)
    with pytest.raises(SessionError, match='session.json is damaged|has the format 9, this version reads 1'):
        Session(session.folder)


def test_a_session_whose_making_was_killed_is_made_again(session, model):
    (session.folder / 'session.json').unlink()
    (session.folder / 'branches' / 'main.json').unlink()
    Session.create(session.folder, model).start(recipe(model), num_frames=40)


def test_the_branch_of_a_killed_run_catches_up_with_its_chunks(session, quick):
    list(session.extend())
    file, chunks_made = session.folder / 'branches' / 'main.json', session.branch().chunks
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {'chunks': values['chunks'][:2]}))
    assert list(session.extend()) == [] and session.branch().chunks == chunks_made


def test_a_torn_line_of_the_journal_is_passed_over(session):
    file = session.folder / 'journal.jsonl'
    file.write_bytes(b'{"time": 1, "chu')
    list(session.extend())
    assert [entry['number'] for entry in session.journal() if 'chunk' in entry] == [0, 1, 2, 3]


def test_names_of_branches_and_numbers_of_chunks_are_checked(session):
    list(session.extend())
    for name in ('', '../x', 'a/b', 'a' * 65, '-a', '.'):
        with pytest.raises(SessionError, match='a branch has a name of up to 64 letters'):
            session.fork('main', 1, name=name or ' ', seed=1)
    with pytest.raises(SessionError, match='there is no branch night in .*; it has main'):
        session.branch('night')
    with pytest.raises(SessionError, match='main has 4 chunks, which are numbered from 0: there is no 5'):
        session.fork('main', 5, seed=1)
    session.fork('main', 1, name='night', seed=1)
    with pytest.raises(Taken, match='the branch night was asked for something else'):
        session.fork('main', 1, name='night', seed=2)


def test_prune_removes_what_no_branch_leads_to(session):
    list(session.extend())
    kept = files(session)
    branch = session.fork('main', 2, seed=8)
    list(session.extend(branch.name))
    (session.folder / 'chunks' / 'mine.txt').write_text('mine')
    assert session.prune() == (0, 0)
    session.remove(branch.name)
    count, size = session.prune()
    assert count == 2 and size > 0 and files(session) == kept | {'mine': b'mine'}
    with pytest.raises(SessionError, match='main is what the session is about'):
        session.remove('main')


def test_a_chunk_at_256_pixels_takes_at_most_1_mb(tmp_path):
    """16 latent frames of 32x32x4 float32, an embedding of 1024, and texts of 77 tokens."""
    inputs = {'ids': [49407] * 77, 'following': [49407] * 77, 'null_ids': [49407] * 77}
    id = chunks.write(tmp_path, inputs, np.ones((1, 16, 32, 32, 4), np.float32), np.ones((1, 1024), np.float32), {})
    assert Path(chunks.path_of(tmp_path, id)).stat().st_size < 1e6
