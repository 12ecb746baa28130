"""Guidance: what the branches receive, and how their predictions are combined."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax.diffusion.guidance import Branch, Guidance, text_and_anchor, text_guidance, text_with_anchor, unguided

SHAPE = (3, 4, 2, 2, 4)
X0 = jax.random.normal(jax.random.key(0), SHAPE)


def branching(*branches):
    """A network that answers with `branches` [b, ...], which are stacked as its conditions would be."""

    def network(x, t):
        assert len(x) == len(t) == SHAPE[0]  # once for a video, not for every branch
        return jnp.concatenate(branches)

    return network


T = jnp.zeros(SHAPE[0])
NULL, TEXT, FULL = jax.random.normal(jax.random.key(1), (3, *SHAPE))


def test_scale_one_is_the_conditional_prediction():
    np.testing.assert_allclose(text_with_anchor(1.0)(branching(NULL, FULL))(X0, T), FULL, atol=1e-6)
    np.testing.assert_allclose(text_and_anchor(1.0, 1.0)(branching(NULL, TEXT, FULL))(X0, T), FULL, atol=1e-6)


def test_equal_branches_give_the_branch():
    np.testing.assert_allclose(text_and_anchor(7.5, 7.5)(branching(FULL, FULL, FULL))(X0, T), FULL, atol=1e-6)


def test_each_scale_moves_along_its_own_condition():
    guided = lambda text, anchor: text_and_anchor(text, anchor)(branching(NULL, TEXT, FULL))(X0, T)
    np.testing.assert_allclose(guided(0.0, 0.0), NULL, atol=1e-6)
    np.testing.assert_allclose(guided(1.0, 0.0), TEXT, atol=1e-6)
    np.testing.assert_allclose(guided(3.0, 2.0) - guided(3.0, 1.0), FULL - TEXT, atol=1e-5)
    np.testing.assert_allclose(guided(4.0, 2.0) - guided(3.0, 2.0), TEXT - NULL, atol=1e-5)


def test_examples_and_their_branches_stay_in_order():
    base = jnp.arange(3.0)[:, None, None, None, None] * jnp.ones(SHAPE)
    network = lambda x, t: jnp.concatenate([x, x + 10])
    np.testing.assert_allclose(text_guidance(2.0)(network)(base, T), base + 20)


def test_rescaled_guidance_has_the_spread_of_the_conditional_example_by_example():
    full = FULL * jnp.array([0.5, 1.0, 4.0])[:, None, None, None, None]
    network = branching(NULL, full)
    spread = lambda y: np.std(y, axis=(1, 2, 3, 4), ddof=1)
    plain = text_guidance(7.5)(network)(X0, T)
    rescaled = text_guidance(7.5, 1.0)(network)(X0, T)
    np.testing.assert_allclose(spread(rescaled), spread(full), rtol=1e-5)
    np.testing.assert_allclose(text_guidance(7.5, 0.25)(network)(X0, T), 0.25 * rescaled + 0.75 * plain, atol=1e-4)


def test_conditions_are_stacked_branch_by_branch():
    which = lambda branch: jnp.array([10.0 * branch.text + branch.anchor] * 2)
    assert text_and_anchor(3.0, 2.0).stack(which).tolist() == [0, 0, 10, 10, 11, 11]
    assert text_with_anchor(3.0).stack(which).tolist() == [0, 0, 11, 11]


@pytest.mark.parametrize(
    'guidance, texts',
    [(text_guidance(2.0), 2), (text_and_anchor(2.0, 2.0), 2), (text_with_anchor(2.0), 2), (unguided(), 1)],
)
def test_branches_that_differ_in_the_anchor_alone_have_a_text_in_common(guidance, texts):
    assert guidance.texts == texts


def test_a_network_without_guidance_is_left_as_it_is():
    network = lambda x, t: x
    assert unguided()(network) is network


def test_equal_guidance_is_one_value():
    assert hash(text_and_anchor(3.0, 1.5)) == hash(text_and_anchor(3.0, 1.5))
    assert text_guidance(3.0) != text_with_anchor(3.0)


def test_every_branch_after_the_first_has_a_scale():
    with pytest.raises(ValueError, match='2 branches have 1 scales'):
        Guidance((Branch(False), Branch(True)), (1.0, 2.0))
