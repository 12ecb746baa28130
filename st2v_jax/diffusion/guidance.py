"""Classifier-free guidance as a value: which conditions the network receives, and how its predictions are combined."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange


class Branch(NamedTuple):
    """Which of its conditions one evaluation of the network receives; null conditions stand in for the others."""

    text: bool
    anchor: bool = False


@dataclass(frozen=True)
class Guidance:
    """y_0 + sum over i of scale_i (y_i - y_(i-1)), where y_i is the prediction of branch i.

    Hashable, because compiled programs depend on it.

    Attributes:
      branches: in the order in which the batch stacks their conditions. Branches that differ in the anchor alone come
        last and next to each other, because CAM, which does not see the anchor, is computed once for them.
      scales: one for each branch after the first.
      rescale: share by which the spread of the guided prediction is pulled back to that of the last branch (Lin et al.
        2023, arXiv:2305.08891, eq. 15 and 16); 0 is off.
    """

    branches: tuple[Branch, ...]
    scales: tuple[float, ...] = ()
    rescale: float = 0.0

    def __post_init__(self):
        if len(self.scales) != len(self.branches) - 1:
            raise ValueError(f'{len(self.branches)} branches have {len(self.branches) - 1} scales, not {self.scales}')

    @property
    def texts(self) -> int:
        """How many branches have a text that no earlier branch has; they come first."""
        return len({branch.text for branch in self.branches})

    def stack(self, which: Callable) -> jax.Array:
        """The conditions which(branch) [b, ...] of all branches, stacked as [n * b, ...]."""
        return jnp.concatenate([which(branch) for branch in self.branches])

    def __call__(self, network: Callable) -> Callable:
        """The guided network (x [b, ...], t [b]) -> [b, ...].

        `network` has the conditions of all branches, as `stack` orders them, and predicts [n * b, ...]. It receives x
        and t once, for they are the same in all branches, and shares what it computes before it reads a condition.
        """
        n = len(self.branches)
        if n == 1:
            return network

        def guided(x, t):
            branches = list(rearrange(network(x, t), '(n b) ... -> n b ...', n=n))
            combined = branches[0]
            for scale, before, branch in zip(self.scales, branches[:-1], branches[1:], strict=True):
                combined = combined + scale * (branch - before)
            return _rescaled(combined, branches[-1], self.rescale)

        return guided


def text_guidance(scale: float, rescale: float = 0.0) -> Guidance:
    """Guidance without an anchor, for a first chunk or a model without APM: null + scale (text - null)."""
    return Guidance((Branch(False), Branch(True)), (scale,), rescale)


def text_and_anchor(text: float, anchor: float, rescale: float = 0.0) -> Guidance:
    """Guidance of the streaming stage in the paper (eq. 12): null + w_text (text - null) + w_anchor (both - text)."""
    return Guidance((Branch(False), Branch(True), Branch(True, True)), (text, anchor), rescale)


def text_with_anchor(scale: float, rescale: float = 0.0) -> Guidance:
    """Guidance of the streaming stage in the release, text and anchor together: null + scale (both - null)."""
    return Guidance((Branch(False), Branch(True, True)), (scale,), rescale)


def unguided() -> Guidance:
    """One evaluation with all conditions, for a network that guidance was distilled into."""
    return Guidance((Branch(True, True),))


def _rescaled(guided, conditional, share):
    """`guided` with its spread pulled to that of `conditional`; it is unbiased, over one example (a whole chunk)."""
    if share == 0:
        return guided
    axes = tuple(range(1, guided.ndim))
    ratio = jnp.std(conditional, axes, ddof=1, keepdims=True) / jnp.std(guided, axes, ddof=1, keepdims=True)
    return guided * (share * ratio + 1 - share)
