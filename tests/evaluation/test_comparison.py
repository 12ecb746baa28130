"""Where the comparison of blendings looks for jumps."""

import pytest

from st2v_jax.evaluation import comparison
from st2v_jax.refinement.blend import Plan


@pytest.mark.parametrize(
    ('plan', 'borders'),
    [
        (Plan(56, 24, 8), [23, 39]),
        (Plan(20), []),
        (
            Plan(60, 24, 8),
            [23, 39, 55],
        ),  # the last chunk is shifted back; its first frames belong to its left neighbour
    ],
)
def test_borders_are_where_the_baselines_join_chunks(plan, borders):
    assert list(comparison.borders(plan)) == borders
