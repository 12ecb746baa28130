"""A prompt may change on the way: each chunk takes the text of its first new frame."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax.diffusion.schedule import DiffusionConfig
from st2v_jax.models.contract import Contract
from st2v_jax.models.system import between
from st2v_jax.streaming.generate import text_ids
from st2v_jax.streaming.prompt_schedule import PromptSchedule, Text, as_schedules, first_new_frame

RELEASED = Contract(16, 16, 8, (256, 256), (32, 32, 4), 77, DiffusionConfig())
OTHERS = [
    dataclasses.replace(RELEASED, first_frames=20, later_frames=12, memory=4),
    dataclasses.replace(RELEASED, memory=13),
    dataclasses.replace(RELEASED, first_frames=24, later_frames=8, memory=4, group_frames=4),
]
ABC = PromptSchedule('A', ((96, 'B'), (192, 'C')))


@pytest.mark.parametrize('contract', [RELEASED, *OTHERS])
@pytest.mark.parametrize('frame', [1, 7, 8, 15, 16, 17, 24, 95, 96, 97, 200])
def test_a_change_takes_effect_with_the_first_chunk_that_begins_at_its_frame_or_later(contract, frame):
    schedule, begun = PromptSchedule('A', ((frame, 'B'),)), 0
    for chunk in range(250):
        assert schedule.of_chunk(contract, chunk) == Text('B' if begun >= frame else 'A')
        begun += contract.frames(chunk == 0) - (contract.memory if chunk else 0)


def test_with_the_released_chunks_the_prompts_change_where_they_are_asked_to():
    texts = [ABC.of_chunk(RELEASED, chunk).prompt for chunk in range(40)]
    assert texts == ['A'] * 11 + ['B'] * 12 + ['C'] * 17 and first_new_frame(RELEASED, 11) == 96


@pytest.mark.parametrize(
    'blend_frames, shares', [(0, []), (8, [1 / 2]), (16, [1 / 3, 2 / 3]), (20, [2 / 7, 4 / 7, 6 / 7])]
)
def test_a_blend_goes_from_one_prompt_to_the_next_in_equal_steps(blend_frames, shares):
    schedule = PromptSchedule('A', ((96, 'B'),), blend_frames)
    texts = [schedule.of_chunk(RELEASED, chunk) for chunk in range(20)]
    assert [text.share for text in texts[11 : 11 + len(shares)]] == pytest.approx(shares)
    assert {text[:2] for text in texts[11 : 11 + len(shares)]} <= {('A', 'B')}
    assert set(texts[:11]) == {Text('A')} and set(texts[11 + len(shares) :]) == {Text('B')}


def test_of_two_blends_each_begins_with_its_own_prompt():
    schedule = PromptSchedule('A', ((16, 'B'), (32, 'C')), 16)
    texts = [schedule.of_chunk(RELEASED, chunk)[:2] for chunk in range(6)]
    assert texts == [('A', None), ('A', 'B'), ('A', 'B'), ('B', 'C'), ('B', 'C'), ('C', None)]


@pytest.mark.parametrize('contract', [RELEASED, *OTHERS])
def test_a_frame_has_the_text_of_the_chunk_in_which_it_is_new(contract):
    schedule = PromptSchedule('A', ((37, 'B'), (90, 'C')), 11)
    for chunk in range(30):
        frames = range(first_new_frame(contract, chunk), first_new_frame(contract, chunk + 1))
        assert {schedule.of_frame(contract, frame) for frame in frames} == {schedule.of_chunk(contract, chunk)}
    assert [schedule.at(frame).prompt for frame in (36, 47, 48)] == ['A', 'A', 'B'], 'without chunks, by the frame'
    assert schedule.at(37) == Text('A', 'B', 1 / 12)


@pytest.mark.parametrize(
    'arguments, rule',
    [
        (('  ',), 'the prompt is empty'),
        (('A', ((5, ' '),)), 'the prompt at frame 5 is empty'),
        (('A', ((0, 'B'),)), 'the prompt changes at frame 1 or later, not 0'),
        (('A', ((-8, 'B'),)), 'the prompt changes at frame 1 or later, not -8'),
        (('A', ((96, 'B'), (40, 'C'))), 'in the order of their frames, not 40 after 96'),
        (('A', ((96, 'B'), (96, 'C'))), 'in the order of their frames, not 96 after 96'),
        (('A', ((96, 'B'),), -1), 'blended over 0 frames or more, not -1'),
        (('A', ((96, 'B'), (104, 'C')), 9), 'a blend over 9 frames from frame 96 is not over at frame 104'),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(arguments, rule):
    with pytest.raises(ValueError, match=f'^.*{re.escape(rule)}.*$'):
        PromptSchedule(*arguments)


@pytest.mark.parametrize(
    'changes, num_frames, rule',
    [
        ([48], 48, 'cannot change at frame 48: the last of 48 frames is 47'),
        ([16, 300], 48, 'cannot change at frame 300: the last of 48 frames is 47'),
        ([41], 48, 'no chunk begins at frame 41 or later: the last of the video begins at 40'),
        ([1], 16, 'no chunk begins at frame 1 or later: the last of the video begins at 0'),
        ([2, 16], 48, 'the prompts at frames 2 and 16 have one chunk, which begins at 16'),
        ([16, 25, 31], 48, 'the prompts at frames 25 and 31 have one chunk, which begins at 32'),
    ],
)
def test_a_prompt_without_a_chunk_is_refused_in_one_line(changes, num_frames, rule):
    schedule = PromptSchedule('A', tuple((frame, f'at {frame}') for frame in changes))
    with pytest.raises(ValueError, match=f'^[^\n]*{re.escape(rule)}$'):
        schedule.check(num_frames, RELEASED)


@pytest.mark.parametrize('changes', [[], [1], [16], [40], [16, 24, 32, 40], [15, 17, 40]])
def test_prompts_with_a_chunk_each_are_accepted(changes):
    PromptSchedule('A', tuple((frame, f'at {frame}') for frame in changes)).check(48, RELEASED)


def test_a_list_has_a_schedule_for_each_video():
    assert as_schedules('A') == as_schedules(['A']) == [PromptSchedule('A')]
    assert as_schedules(ABC) == [ABC] and as_schedules([ABC, 'A']) == [ABC, PromptSchedule('A')]
    for empty in ([], [''], ['A', ' ']):
        with pytest.raises(ValueError, match='the prompt is empty'):
            as_schedules(empty)


def test_ids_of_texts_have_the_following_prompt_and_its_share():
    ids = {'A': np.array([1, 2]), 'B': np.array([3, 4])}
    told = text_ids(ids, [Text('A'), Text('A', 'B', 0.25)])
    assert told.ids.tolist() == [[1, 2], [1, 2]] and told.following.tolist() == [[1, 2], [3, 4]]
    assert told.share.tolist() == [0, 0.25] and told.share.dtype == np.float32


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_states_lie_on_the_straight_line(dtype):
    one, other = jnp.full((3, 2, 4), 8, dtype), jnp.full((3, 2, 4), 16, dtype)
    with jax.disable_jit():
        mixed = between(one, other, jnp.array([0, 0.25, 0.5]))
    assert mixed.dtype == dtype and mixed[:, 0, 0].tolist() == [8, 10, 12]
