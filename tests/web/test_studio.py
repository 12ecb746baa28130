"""What the buttons of the page do to sessions on disk, in which order, and what is refused."""

import pytest

from st2v_jax.errors import BadInput, OutputError, SessionError
from st2v_jax.sessions.about import writing
from st2v_jax.sessions.session import Session
from st2v_jax.streaming.prompt_schedule import PromptSchedule
from st2v_jax.web.look import look
from st2v_jax.web.turns import Job, Turns, words

PROMPT, OTHER = 'a red ball moves left', 'a blue star over sand'


def wait(studio, *keys):
    """Until the jobs of branches have ended."""
    with studio.turns._changed:
        while any(studio.turns._find(key) for key in keys):
            assert studio.turns._changed.wait(60)


def test_what_is_asked_for_is_on_disk_before_the_work_begins(studio):
    name = studio.make(PROMPT, 48, 7)
    branch = Session(studio.folder / name).branch()
    assert (branch.recipes[0].prompts.prompt, branch.recipes[0].seed, branch.num_frames) == (PROMPT, 7, 48)
    assert look(studio, name, 'main')['branch']['doing'] == 'making'


def test_two_videos_take_turns_chunk_by_chunk(studio, paced):
    one, two = studio.make(PROMPT, 40, 0), studio.make(OTHER, 40, 0)
    assert (one, two) == ('a-red-ball-moves-left', 'a-blue-star-over-sand')
    assert look(studio, two, 'main')['branch'] | {} and look(studio, two, 'main')['branch']['doing'] == 'waiting'
    paced.free()
    wait(studio, (one, 'main'), (two, 'main'))
    assert paced.made == [('main', number) for number in (0, 0, 1, 1, 2, 2, 3, 3)]
    assert [len(Session(studio.folder / name).branch().chunks) for name in (one, two)] == [4, 4]


def test_a_pause_keeps_what_is_stored_and_go_on_makes_the_rest(studio, paced):
    name = studio.make(PROMPT, 24, 0)
    paced.entered.acquire()
    studio.pause(name, 'main')
    assert look(studio, name, '')['branch']['doing'] == 'pausing'
    paced.let.release()
    wait(studio, (name, 'main'))
    assert look(studio, name, '')['branch']['doing'] == 'stopped' and paced.made == []
    paced.free()
    studio.go_on(name, 'main')
    wait(studio, (name, 'main'))
    assert look(studio, name, '')['branch']['doing'] == 'done' and len(paced.made) == 2
    with pytest.raises(BadInput, match='all 24 frames are made: ask for more'):
        studio.go_on(name, 'main')


def test_another_prompt_begins_with_the_first_chunk_that_is_not_stored(studio, paced):
    name = studio.make(PROMPT, 40, 0)
    for _ in range(2):
        paced.entered.acquire()
        paced.let.release()
    paced.entered.acquire()  # chunk 1 is in work
    before = Session(studio.folder / name).branch().chunks
    paced.free()
    studio.go_on(name, 'main', OTHER, 48)
    wait(studio, (name, 'main'))
    branch = Session(studio.folder / name).branch()
    assert branch.num_frames == 48 and branch.chunks[: len(before)] == before
    told = [branch.recipe(number).prompts.prompt for number in range(len(branch.chunks))]
    assert told[0] == PROMPT and told[-1] == OTHER and sorted(told, reverse=True) == told


def test_a_reroll_and_another_prompt_make_branches_that_share_what_comes_before(studio, paced):
    paced.free(4)
    name = studio.make(PROMPT, 40, 0)
    wait(studio, (name, 'main'))
    # the second is asked for before the first has made its chunk
    assert [studio.reroll(name, 'main', 2), studio.reroll(name, 'main', 2)] == ['main-2-seed1', 'main-2-seed1']
    paced.free()
    wait(studio, (name, 'main-2-seed1'))
    assert studio.reroll(name, 'main', 2) == 'main-2-seed2' and studio.fork(name, 'main', 3, OTHER) == 'main-3'
    wait(studio, (name, 'main-2-seed2'), (name, 'main-3'))
    session = Session(studio.folder / name)
    chunks = {each: session.branch(each).chunks for each in session.names()}
    assert all(len(each) == 4 for each in chunks.values())
    rows = {row['name']: (row['parent'], row['shared']) for row in look(studio, name, 'main')['tree']}
    assert rows == {'main': (None, 0), 'main-2-seed1': ('main', 2), 'main-2-seed2': ('main', 2), 'main-3': ('main', 3)}


def test_a_queue_goes_on_after_a_failure_which_is_told_in_one_line(studio, paced, monkeypatch):
    paced.free()
    bad = studio.make(PROMPT, 16, 0)
    wait(studio, (bad, 'main'))

    def full(*_):
        raise OSError(28, 'No space left on device', 'chunk')

    with monkeypatch.context() as patch:
        patch.setattr(studio.seen, 'keep', full)
        studio.go_on(bad, 'main', '', 24)
        wait(studio, (bad, 'main'))
    good = studio.make(OTHER, 16, 0)
    wait(studio, (good, 'main'))
    assert look(studio, bad, 'main')['branch']['doing'] == 'done', 'the chunk was stored before'
    assert look(studio, bad, 'main')['branch']['error'] == 'chunk: No space left on device'
    assert look(studio, good, 'main')['branch']['error'] is None


def test_a_bug_is_one_line_on_the_page_and_a_traceback_in_the_terminal(capsys):
    def steps():
        yield False
        raise AssertionError('two\nlines')

    turns = Turns(words)
    turns.add(Job(('a', 'b'), steps()))
    with turns._changed:
        assert turns._changed.wait_for(lambda: turns.failure(('a', 'b')), 60)
    turns.close()
    assert turns.failure(('a', 'b')) == "this is a bug of st2v_jax, see the terminal: AssertionError('two\\nlines')"
    assert 'Traceback' in capsys.readouterr().err


def test_a_session_that_another_process_changes_can_be_watched_only(studio, paced):
    paced.free()
    name = studio.make(PROMPT, 16, 0)
    wait(studio, (name, 'main'))
    with writing(studio.folder / name):
        with pytest.raises(OutputError, match='another run is writing'):
            studio.reroll(name, 'main', 0)
        assert look(studio, name, 'main')['branch']['doing'] == 'done'


@pytest.mark.parametrize('name', ['..', '.', '', '../videos', '/etc', 'a/b', 'a\\b', '.seen', 'x' * 65, 'no-such'])
def test_a_name_leads_to_sessions_of_the_folder_only(studio, name):
    with pytest.raises(SessionError, match='there is no video'):
        studio.place(name)
    assert name == '' or 'there is no video' in look(studio, name, 'main')['error']


def test_a_session_that_cannot_be_read_is_told_without_saying_where_it_lies(studio, model):
    Session.create(studio.folder / 'empty', model)  # killed before anything was asked for
    Session.create(studio.folder / 'damaged', model)
    (studio.folder / 'damaged' / 'session.json').write_text('{')
    for name, told in (('empty', 'there is no branch main in empty; it has none'), ('damaged', 'damaged')):
        seen = look(studio, name, 'main')
        assert told in seen['error'] and str(studio.folder) not in str(seen)
    assert {(video['name'], video['doing']) for video in seen['videos']} == {('empty', 'failed'), ('damaged', 'failed')}


def test_a_branch_of_a_strange_name_is_none(studio, paced):
    name = studio.make(PROMPT, 16, 0)
    for branch in ('../main', '../../x', 'main/../main'):
        with pytest.raises(SessionError):
            studio.go_on(name, branch)


@pytest.mark.parametrize(
    'asked, told',
    [
        ((' ', 16, 0), 'the prompt is empty'),
        (('elephants', 16, 0), 'the model understands nothing of "elephants"'),
        (('a ' * 501, 16, 0), 'a prompt has at most 1000 letters, not 1002'),
        ((PROMPT, 0, 0), 'a video has 1 to 14400 frames here, not 0'),
        ((PROMPT, 10**9, 0), 'a video has 1 to 14400 frames here, not 1000000000'),
        ((PROMPT, 16, 2**32), 'a seed is between 0 and 4294967295, not 4294967296'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_what_makes_no_video_leaves_none(studio, asked, told):
    with pytest.raises((BadInput, ValueError), match=told):
        studio.make(*asked)
    assert studio.names() == []


def test_words_that_have_no_effect_are_named(studio):
    assert studio.notes_on(PROMPT) == []
    assert studio.notes_on('a green ball') == ['the model does not know green, which will have no effect']


def test_scores_of_a_gate_are_shown_with_the_chunk_that_was_kept(studio, paced):
    from st2v_jax.sessions import journal

    paced.free()
    name = studio.make(PROMPT, 24, 0)
    wait(studio, (name, 'main'))
    file = studio.folder / name / 'journal.jsonl'
    journal.add(file, number=1, branch='main', draws=[{'seam': 3.0}, {'seam': 0.5}], kept=1)
    shared = studio.fork(name, 'main', 2, OTHER)
    for branch in ('main', shared):
        scores = [chunk['scores'] for chunk in look(studio, name, branch)['branch']['chunks']]
        assert scores[:2] == [None, {'seam': 0.5}]


def test_a_clip_that_is_gone_on_from_is_kept_in_the_session(studio, paced):
    import numpy as np

    from st2v_jax.video_io.start import Start

    name = studio.make(PROMPT, 16, 0, Start(np.zeros((8, 32, 32, 3), np.uint8)))
    shown = look(studio, name, 'main')['branch']
    assert shown['given']['frames'] == 8 and [chunk['frames'] for chunk in shown['chunks']] == [8, 8]


def test_the_next_chunk_of_an_unchanged_prompt_is_not_made_again(studio, paced):
    paced.free()
    name = studio.make(PROMPT, 16, 0)
    wait(studio, (name, 'main'))
    studio.go_on(name, 'main', PROMPT, 24)
    wait(studio, (name, 'main'))
    branch = Session(studio.folder / name).branch()
    assert len(branch.recipes) == 1 and branch.recipes[0].prompts == PromptSchedule(PROMPT)
