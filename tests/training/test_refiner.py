"""The objective of the Refiner."""

import jax
import numpy as np
import pytest
from configs_of import stage_config
from training.stage import Stage, random_encoders

from st2v_jax.models import build
from st2v_jax.training import refiner

pytestmark = pytest.mark.usefixtures('unoptimised')


@pytest.fixture(scope='module')
def stage():
    model = build.ModelConfig.from_dict(stage_config('refiner').model.to_dict())
    vae = build.init(jax.random.key(3), build.vae(model.for_refinement))
    return Stage('refiner', {**random_encoders(), 'refiner_vae': vae})


@pytest.mark.slow
def test_it_learns(stage):
    losses = stage.run(15)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert set(stage.state.params) == {'refiner'} and set(stage.frozen) == {'text'}


@pytest.mark.slow
def test_pairs_are_one_video_twice_on_the_canvas(stage):
    pairs, length = stage.objective.data.pairs, stage.model.refiner.length
    assert pairs.clean.shape == pairs.source.shape == (*pairs.clean.shape[:3], 16, 16, 4)  # 32x32 pixels
    batch = refiner.draw(jax.random.key(5), pairs, length)
    for i in range(len(batch.ids)):
        clean, source = (np.asarray(leaf[i]) for leaf in (pairs.clean, pairs.source))
        places = [
            (n, slice(first, first + length)) for n in range(len(clean)) for first in range(clean.shape[1] - length + 1)
        ]
        places = [place for place in places if (clean[place] == np.float16(batch.clean[i])).all()]
        assert any((source[place] == np.float16(batch.source[i])).all() for place in places)
    assert (batch.source != batch.clean).any()


def test_it_sees_no_level_above_its_start():
    start, t = map(np.asarray, refiner.sdedit_times(jax.random.key(0), 20_000, 200, 300))
    assert set(start) == set(range(200, 301)) and t.min() == 0 and (t <= start).all()
    assert t[start == 300].max() > 290 and t.mean() == pytest.approx(125, abs=2)
