"""RAFT-Large: optical flow by repeated updates (Teed and Deng 2020, arXiv:2003.12039), as torchvision publishes it."""

import einops
import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from st2v_jax.models.layers import FRAME, Conv

STRIDE, SMALLEST = 8, 128  # pixels: a feature stands for so many a side; of a side, for the pyramid's last level
UPDATES = 12
LEVELS, RADIUS = 4, 4
WIDTHS = (64, 96, 128)  # of the encoder's three levels, each of two blocks
FEATURES, HIDDEN, MOTION = 256, 128, 128
NEIGHBOURS = 3  # a side, of which a pixel's flow is mixed


def _conv(width, new, kernel=(3, 3), strides=1, **own):
    return Conv(width, new, kernel, strides=strides, padding=[(k // 2, k // 2) for k in kernel], **own)


def _instance_norm(x):
    """Each channel of each image with mean 0 and variance 1."""
    return (x - x.mean(FRAME, keepdims=True)) * jax.lax.rsqrt(x.var(FRAME, keepdims=True) + 1e-5)


class Block(nnx.Module):
    """Two 3x3 convolutions with a residual around them: x [b, h, w, width] -> [b, h / stride, w / stride, new]."""

    def __init__(self, width: int, new: int, stride: int, normed: bool, **own):
        self.norm = _instance_norm if normed else lambda x: x
        self.conv1 = _conv(width, new, strides=stride, **own)
        self.conv2 = _conv(new, new, **own)
        self.projects = stride > 1
        if self.projects:
            self.shortcut = _conv(width, new, (1, 1), stride, **own)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = jax.nn.relu(self.norm(self.conv1(x)))
        y = jax.nn.relu(self.norm(self.conv2(y)))
        return jax.nn.relu(y + (self.norm(self.shortcut(x)) if self.projects else x))


class Encoder(nnx.Module):
    """Features [b, h / 8, w / 8, 256] of images [b, h, w, 3].

    Args:
      normed: instance norm after each convolution but the last. Without it, those of the context have a batch norm
        whose statistics are frozen and therefore part of the convolutions.
    """

    def __init__(self, normed: bool, **own):
        self.norm = _instance_norm if normed else lambda x: x
        self.conv_in = _conv(3, WIDTHS[0], (7, 7), 2, **own)
        self.blocks, width = nnx.List(), WIDTHS[0]
        for level, new in enumerate(WIDTHS):
            self.blocks.append(Block(width, new, 1 if level == 0 else 2, normed, **own))
            self.blocks.append(Block(new, new, 1, normed, **own))
            width = new
        self.conv_out = _conv(width, FEATURES, (1, 1), **own)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = jax.nn.relu(self.norm(self.conv_in(x)))
        for block in self.blocks:
            x = block(x)
        return self.conv_out(x)


def pyramid(first: jax.Array, second: jax.Array) -> list[jax.Array]:
    """Correlations of all pairs of features of two images [b, h, w, c], [b, h, w, h / 2^l, w / 2^l] for each level l.

    The features of the second image are averaged over windows of 2^l x 2^l pixels, as their correlations would be.
    """
    levels = []
    for level in range(LEVELS):
        second = nnx.avg_pool(second, (2, 2), (2, 2)) if level else second
        levels.append(jnp.einsum('bhwc,byxc->bhwyx', first, second) / first.shape[-1] ** 0.5)
    return levels


def look_up(levels: list[jax.Array], at: jax.Array) -> jax.Array:
    """The correlations [b, h, w, 4 * 81] in windows of 9x9 around places `at` [b, h, w, 2], (x, y), on each level.

    Bilinear, and zero outside. The weights of all columns and rows are written out, so that this is two products of
    matrices and gathers nothing.
    """
    offsets = jnp.arange(-RADIUS, RADIUS + 1, dtype=at.dtype)

    def weights(places, size):
        distance = places[..., None, None] + offsets[:, None] - jnp.arange(size, dtype=at.dtype)
        return jax.nn.relu(1 - jnp.abs(distance))

    found = []
    for level, values in enumerate(levels):
        rows, columns = (weights(at[..., axis] / 2**level, values.shape[-1 - axis]) for axis in (1, 0))
        window = jnp.einsum('bhwiy,bhwyx->bhwix', rows, values)
        window = jnp.einsum('bhwix,bhwjx->bhwji', window, columns)  # the published weights have columns first
        found.append(einops.rearrange(window, 'b h w j i -> b h w (j i)'))
    return jnp.concatenate(found, -1)


class Gru(nnx.Module):
    """Gated recurrent unit whose products are convolutions: hidden [b, h, w, 128], x [b, h, w, c] -> new hidden."""

    def __init__(self, width: int, kernel: tuple[int, int], **own):
        self.z, self.r, self.q = (_conv(HIDDEN + width, HIDDEN, kernel, **own) for _ in range(3))

    def __call__(self, hidden: jax.Array, x: jax.Array) -> jax.Array:
        both = jnp.concatenate([hidden, x], -1)
        update, reset = jax.nn.sigmoid(self.z(both)), jax.nn.sigmoid(self.r(both))
        new = jnp.tanh(self.q(jnp.concatenate([reset * hidden, x], -1)))
        return (1 - update) * hidden + update * new


class Update(nnx.Module):
    """Hidden, context, correlations and flow, each [b, h, w, c] -> new hidden, and what is added to the flow."""

    def __init__(self, **own):
        self.correlation1 = _conv(LEVELS * (2 * RADIUS + 1) ** 2, 256, (1, 1), **own)
        self.correlation2 = _conv(256, 192, **own)
        self.flow1, self.flow2 = _conv(2, 128, (7, 7), **own), _conv(128, 64, **own)
        self.motion = _conv(192 + 64, MOTION - 2, **own)
        width = FEATURES - HIDDEN + MOTION
        self.grus = nnx.List([Gru(width, kernel, **own) for kernel in ((1, 5), (5, 1))])
        self.head1, self.head2 = _conv(HIDDEN, 256, **own), _conv(256, 2, **own)

    def __call__(
        self, hidden: jax.Array, context: jax.Array, correlations: jax.Array, flow: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        relu = jax.nn.relu
        seen = relu(self.correlation2(relu(self.correlation1(correlations))))
        moved = relu(self.flow2(relu(self.flow1(flow))))
        motion = relu(self.motion(jnp.concatenate([seen, moved], -1)))
        x = jnp.concatenate([context, motion, flow], -1)
        for gru in self.grus:
            hidden = gru(hidden, x)
        return hidden, self.head2(relu(self.head1(hidden)))


def upsampled(flow: jax.Array, scores: jax.Array) -> jax.Array:
    """Flow [b, h, w, 2] in steps of 8 pixels -> [b, 8 * h, 8 * w, 2] in pixels.

    Each pixel's is a mean over the 3x3 features around it, with weights that add up to 1: the softmax of the scores
    [b, h, w, 9 * 64], ordered (neighbour, row, column). Outside the image the flow is zero.
    """
    _, h, w, _ = flow.shape
    wide = jnp.pad(STRIDE * flow, ((0, 0), (1, 1), (1, 1), (0, 0)))
    around = [wide[:, y : y + h, x : x + w] for y in range(NEIGHBOURS) for x in range(NEIGHBOURS)]
    scores = einops.rearrange(scores, 'b h w (k i j) -> b h w k i j', i=STRIDE, j=STRIDE)
    mixed = jnp.einsum('bhwkij,kbhwc->bhiwjc', jax.nn.softmax(scores, -3), jnp.stack(around))
    return einops.rearrange(mixed, 'b h i w j c -> b (h i) (w j) c')


class Raft(nnx.Module):
    """Optical flow [b, h, w, 2] in pixels, (x, y), between images [b, h, w, 3] in [-1, 1].

    first(x) shows what second(x + flow(x)) shows. Sides are multiples of 8, and at least 128: below, the published
    network has no defined value.
    """

    def __init__(self, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        own = dict(dtype=dtype, rngs=rngs)
        self.features, self.context = Encoder(True, **own), Encoder(False, **own)
        self.update = Update(**own)
        self.scores1 = _conv(HIDDEN, 256, **own)
        self.scores2 = _conv(256, NEIGHBOURS**2 * STRIDE**2, (1, 1), **own)

    def __call__(self, first: jax.Array, second: jax.Array, updates: int = UPDATES) -> jax.Array:
        both = self.features(jnp.concatenate([first, second]))
        levels = pyramid(*jnp.split(both, 2))
        hidden, context = jnp.split(self.context(first), [HIDDEN], -1)
        context = jax.nn.relu(context)
        b, h, w, _ = context.shape
        here = jnp.stack(jnp.meshgrid(jnp.arange(w), jnp.arange(h)), -1).astype(context.dtype)

        def step(state, _):
            hidden, flow = state
            hidden, change = self.update(hidden, context, look_up(levels, here + flow), flow)
            return (hidden, flow + change), None

        start = jnp.tanh(hidden), jnp.zeros((b, h, w, 2), context.dtype)
        (hidden, flow), _ = jax.lax.scan(step, start, length=updates)
        # The published network scales the scores by a quarter, which it was trained with.
        return upsampled(flow, 0.25 * self.scores2(jax.nn.relu(self.scores1(hidden))))
