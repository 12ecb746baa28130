"""The gate: what is a fault and what is none, right values on frames made by hand, and which draw is kept."""

import jax
import numpy as np
import pytest
from known_videos import bleaching, changed, noisy, panning, texture, zooming

from st2v_jax.errors import OutOfRange
from st2v_jax.streaming.gate import LIMITS, OFF, Gate, Trial, faults, scores
from st2v_jax.streaming.stream import redrawn, video_keys

MEMORY = 8
CLEAN, CUT, WORSE = {'cut': 1.0}, {'cut': 2 * LIMITS['cut']}, {'cut': 3 * LIMITS['cut']}


def grey(*levels):
    """Plain frames uint8 [n, 16, 16, 3]."""
    return np.stack([np.full((16, 16, 3), level, np.uint8) for level in levels])


def judged(video):
    return faults(scores(video[MEMORY:], video[:MEMORY]))


def joined(before, after):
    return np.concatenate([before[:MEMORY], after[MEMORY:]])


def saturated(video, by):
    def change(frame, *_):
        middle = frame.mean(-1, keepdims=True)
        return middle + by * (frame - middle)

    return joined(video, changed(video, change))


still, video = np.repeat(panning(1), 16, 0), panning(16, 2)
TRUE = {
    'a pan': video,
    'a slow pan': panning(16, 1),
    'a fast pan': panning(16, 12),
    'a zoom': zooming(16),
    'a still picture': still,
    'a still picture with noise': noisy(still, 2),
    'a pan with noise': noisy(video, 2),
    'colour that goes slowly': bleaching(video, 0.3),
    'black': grey(*[0] * 16),
    'white': grey(*[255] * 16),
    'one that was still and begins to move': np.concatenate([still[:7], video[:9]]),
}
WRONG = {
    'frozen': (video[np.minimum(np.arange(16), 7)], 'still'),
    'frozen with noise': (noisy(video[np.minimum(np.arange(16), 7)], 2), 'still'),
    'frozen from the third frame on': (video[np.minimum(np.arange(16), 10)], 'still'),
    'another scene': (joined(video, panning(16, 2, seed=1)), 'cut'),
    'another scene after a still one': (joined(still, panning(16, 1, seed=1)), 'cut'),
    'brighter': (joined(video, changed(video, lambda frame, *_: frame + 16)), 'colour'),
    'darker': (joined(video, changed(video, lambda frame, *_: frame - 16)), 'colour'),
    'redder': (joined(video, changed(video, lambda frame, *_: frame + np.float32([24, 0, 0]))), 'colour'),
    'less contrast': (joined(video, changed(video, lambda frame, *_: 128 + 0.5 * (frame - 128))), 'colour'),
    'more colourful': (saturated(video, 2), 'saturation'),
    'much more colourful': (saturated(video, 3), 'saturation'),
}


@pytest.mark.parametrize('name', TRUE)
def test_what_goes_on_as_before_has_no_fault(name):
    assert judged(TRUE[name]) == []


@pytest.mark.parametrize('name', WRONG)
def test_a_defect_is_found_and_named(name):
    video, fault = WRONG[name]
    assert fault in judged(video)
    assert judged(np.float32(video) / 127.5 - 1) == judged(video), 'floats as networks give them'


@pytest.mark.parametrize('number', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('where', [(0, 0, 0, 0), (7, 63, 63, 2), ...], ids=str)
def test_a_number_that_is_not_finite_is_a_fault_also_of_a_first_chunk(number, where):
    frames = np.float32(video) / 127.5 - 1
    frames[MEMORY:][where] = number
    assert judged(frames) == faults(scores(frames[MEMORY:])) == ['not_finite']
    assert scores(frames[:MEMORY]) == {'not_finite': 0.0}


def test_scores_have_the_values_of_their_definitions():
    before, after = grey(100, 104, 108), grey(128, 130, 132)
    found = scores(after, before)
    assert found['cut'] == (20 + 0.5) / (4 + 0.5)
    assert found['still'] == pytest.approx((4 + 0.5) / (2 + 0.5)), 'medians of 4, 4 and of 20, 2, 2'
    assert found['colour'] == pytest.approx((20 + 0.5) / (4 + 0.5)), 'plain frames move as a whole'
    assert found['saturation'] == 1, 'grey before, grey after'


@pytest.mark.parametrize('memory, new, named', [(1, 1, ['saturation']), (1, 3, ['cut', 'colour', 'saturation'])])
def test_a_score_without_anything_to_compare_with_is_left_out(memory, new, named):
    found = scores(grey(*range(10, 10 + new)), grey(*range(10 - memory, 10)))
    assert [*found] == ['not_finite', *named] and not faults(found)


def test_a_large_moving_picture_and_its_reduction_are_judged_alike():
    big = np.stack([texture(128, 176)[:, 2 * i : 2 * i + 128] for i in range(16)])
    assert judged(big) == judged(big[:, ::2, ::2]) == []


def run(gate, *drawn, monkeypatch):
    """A Trial over draws with these scores; None is one whose numbers are not finite."""
    scored = iter(drawn)
    monkeypatch.setattr('st2v_jax.streaming.gate.scores', lambda frames, before: frames)
    trial, best = Trial(gate, None), []
    while trial.goes_on:
        with trial.not_finite():
            found = next(scored)
            if found is None:
                raise OutOfRange('not finite')
            if trial.is_best([found]):
                best.append(trial.draw - 1)
    assert next(scored, 'all are drawn') == 'all are drawn'
    assert best[-1] == trial.kept
    return trial


@pytest.mark.parametrize(
    'gate, drawn, kept',
    [
        (Gate('warn'), [CLEAN], 0),
        (Gate('warn'), [WORSE], 0),
        (Gate('reroll', 2), [CLEAN], 0),
        (Gate('reroll', 2), [CUT, CLEAN], 1),
        (Gate('reroll', 2), [WORSE, CUT, CUT], 1),
        (Gate('reroll', 2), [CUT, WORSE, WORSE], 0),
        (Gate('reroll', 1), [WORSE, CUT], 1),
        (Gate('reroll', 2), [None, WORSE, CUT], 2),
        (Gate('reroll', 2), [None, None, WORSE], 2),
        (Gate('reroll', 2), [CUT, None, WORSE], 0),
    ],
)
def test_a_fault_is_drawn_again_until_there_is_none_and_the_best_is_kept(gate, drawn, kept, monkeypatch):
    assert run(gate, *drawn, monkeypatch=monkeypatch).kept == kept


def test_without_one_finite_draw_the_error_is_raised(monkeypatch):
    for gate, draws in ((OFF, 1), (Gate('warn'), 1), (Gate('reroll', 2), 3)):
        with pytest.raises(OutOfRange):
            run(gate, *[None] * draws, monkeypatch=monkeypatch)


def test_off_looks_at_nothing():
    trial = Trial(OFF, None)
    assert trial.is_best(None) and not trial.goes_on and trial.line(3) is None and trial.scored == [{}]


@pytest.mark.parametrize(
    'gate, drawn, line',
    [
        (Gate('warn'), [CLEAN], None),
        (
            Gate('warn'),
            [CUT],
            'chunk 7 changes {:.3g} times as much at its border as elsewhere (at most {:g}); it is kept',
        ),
        (Gate('reroll', 2), [CUT, CLEAN], '; drawn again once, draw 1 is kept, which has no fault'),
        (Gate('reroll', 2), [CUT, WORSE, WORSE], '; drawn again 2 times, never better: the first draw is kept'),
        (
            Gate('reroll', 1),
            [WORSE, {'still': 24.0}],
            'draw 1 is kept, which changes 24 times less than the frames before',
        ),
        (Gate('reroll', 1), [None, CLEAN], 'chunk 7 has numbers that are not finite; drawn again once, draw 1 is kept'),
        (Gate('warn'), [CUT | {'saturation': 2.0}], ' and is 2 times as colourful as the frames before it'),
    ],
)
def test_what_was_found_and_done_is_one_line(gate, drawn, line, monkeypatch):
    told = run(gate, *drawn, monkeypatch=monkeypatch).line(7)
    assert told == line if line is None else line.format(CUT['cut'], LIMITS['cut']) in told
    assert '\n' not in (told or '')


def test_a_redrawn_chunk_shares_its_noise_with_no_other():
    keys = video_keys([0, 7])
    assert redrawn(keys, 0) is keys
    fold = jax.vmap(jax.random.fold_in, (0, None))
    chunks = [fold(redrawn(keys, draw), index) for draw in range(3) for index in range(3)]
    seen = {tuple(row) for key in chunks for row in np.asarray(jax.random.key_data(key)).tolist()}
    assert len(seen) == 18


@pytest.mark.parametrize('values, rule', [(('on',), 'off, warn, reroll, not'), (('reroll', 0), 'at least once')])
def test_a_gate_that_makes_no_sense_is_refused(values, rule):
    with pytest.raises(ValueError, match=rule):
        Gate(*values)
