"""Softmax attention in bounded memory: one door, `attend`, and behind it the kernels of each device.

All kernels map q [b, t, n, d] and k, v [b, s, n, d] to [b, t, n, d], with scores and softmax in float32. `causal` hides
from a query the keys after its own position.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import einops
import jax
import jax.numpy as jnp
from jax import lax

from st2v_jax import devices

SCORE_BYTES = 2**29  # of float32 scores on a device at a time: enough to occupy a large GPU, little for a small one
LONG = 1024  # queries and keys from which the kernel for a TPU, which fills them up to multiples of 512, is worth it
DEEP = 512  # queries that each element of a batch should have in a block before the block takes several elements


def attend(q: jax.Array, k: jax.Array, v: jax.Array, *, causal: bool = False) -> jax.Array:
    """Attention of q [b, t, n, d] over k, v [b, s, n, d] -> [b, t, n, d], in float32 inside.

    The kernel depends on shapes and on the device of `devices.current`; no kernel holds more than `SCORE_BYTES` of the
    scores [b, n, t, s], and neither do the gradients.
    """
    device = devices.current()
    if q.dtype == jnp.float16 and device.platform == 'cpu':  # has no products of float16 that are summed in float32
        return attend(*(x.astype(jnp.float32) for x in (q, k, v)), causal=causal).astype(q.dtype)
    return kernel_for(device, q, k)(q, k, v, causal)


def kernel_for(device: Any, q: jax.Array, k: jax.Array) -> Callable:
    """The kernel for q and k on a device: `cudnn`, `splash`, `plain`, `by_heads` or `blocked`."""
    (b, t, n, d), s = q.shape, k.shape[1]
    half = q.dtype in (jnp.bfloat16, jnp.float16)
    if half and (devices.capability(device) or (0, 0)) >= (8, 0) and t >= 64 and t % 2 == 0 and d <= 128 and d % 8 == 0:
        return cudnn
    if device.platform == 'tpu' and min(t, s) >= LONG and devices.parts(q) == 1:  # a compiler cannot divide a kernel
        return splash
    if 4 * b * n * t * s > _parts(q) * SCORE_BYTES:
        return blocked
    return by_heads if device.platform == 'cpu' and q.dtype == jnp.float32 else plain


def _parts(q):
    """Over how many devices the compiler divides a batch, for all that is divided are batches and heads."""
    return math.gcd(devices.parts(q), len(q))


def plain(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool) -> jax.Array:
    """The formula, with all scores in memory."""
    return jax.nn.dot_product_attention(q, k, v, is_causal=causal, implementation='xla')


def by_heads(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool) -> jax.Array:
    """`plain` for float32, in the order that suits a CPU: heads before tokens, and divided by the sum at the end.

    For 256 tokens it takes a quarter of the time of `plain`, for other lengths at most as long.
    """
    q, k, v = (einops.rearrange(a, 'b t n d -> b n t d') for a in (q, k, v))
    scores = jnp.einsum('bntd,bnsd->bnts', q * q.shape[-1] ** -0.5, k)
    if causal:
        scores = jnp.where(jnp.tri(*scores.shape[-2:], dtype=bool), scores, -jnp.inf)
    weights = jnp.exp(scores - lax.stop_gradient(scores.max(-1, keepdims=True)))
    y = jnp.einsum('bnts,bnsd->bntd', weights, v) / weights.sum(-1, keepdims=True)
    return einops.rearrange(y, 'b n t d -> b t n d')


def cudnn(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool) -> jax.Array:
    """cuDNN's flash attention, for NVIDIA's Ampere and later cards in half precision."""
    b, length = k.shape[:2]
    lengths = None
    if length % 2:  # the gradient needs an even length and a text has 77 tokens: add one that is masked
        k, v = (jnp.pad(a, ((0, 0), (0, 1), (0, 0), (0, 0))) for a in (k, v))
        lengths = jnp.full(b, length, jnp.int32)
    return jax.nn.dot_product_attention(
        q, k, v, is_causal=causal, key_value_seq_lengths=lengths, implementation='cudnn'
    )


def splash(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool) -> jax.Array:
    """jax's Pallas kernel for a TPU. It takes whole blocks, so sequences are filled up and the added keys masked."""
    from jax.experimental.pallas.ops.tpu import splash_attention as pallas  # here: it takes half a second

    (b, t, n, d), s = q.shape, k.shape[1]
    size = 512 if d * q.dtype.itemsize <= 1024 else 256  # blocks of wide heads must fit the memory of a core

    def filled(a):
        a = jnp.pad(a, ((0, 0), (0, -a.shape[1] % size), (0, 0), (0, 0)))
        return einops.rearrange(a, 'b t n d -> (b n) t d')

    q, k, v = filled(q * d**-0.5), filled(k), filled(v)
    shape, segments = (q.shape[1], k.shape[1]), None
    if s < shape[1]:  # a query sees the keys of its own segment
        segments = pallas.SegmentIds(jnp.zeros(shape[0], jnp.int32), jnp.int32(jnp.arange(shape[1]) >= s))
    mask = pallas.CausalMask(shape) if causal else pallas.FullMask(shape)
    kernel = pallas.make_splash_mha(
        pallas.MultiHeadMask([mask] * (b * n)),
        block_sizes=pallas.BlockSizes(*(size,) * 8),
        head_shards=1,
        q_seq_shards=1,
    )
    return einops.rearrange(kernel(q, k, v, segments), '(b n) t d -> b t n d', b=b)[:, :t]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def blocked(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool) -> jax.Array:
    """`plain` for some queries at a time, one block after the other; for the gradient they are computed again."""
    blocks = _Blocks.of(q, k)
    # What all devices must agree on would be asked of them in each block.
    values = _block if causal or devices.parts(q) > 1 else _quick_block
    q, k, v = map(blocks.cut, (q, k, v))

    def step(i, y):
        at = blocks.at(i)
        return at.written(y, values(at, causal, at.queries(q), at.keys(k), at.keys(v)))

    return blocks.joined(lax.fori_loop(0, blocks.count, step, jnp.zeros_like(q)))


def _forward(q, k, v, causal):
    return blocked(q, k, v, causal), (q, k, v)


def _backward(causal, saved, gradient):
    blocks = _Blocks.of(*saved[:2])
    q, k, v, gradient = map(blocks.cut, (*saved, gradient))

    def step(i, sums):
        at = blocks.at(i)
        _, pull = jax.vjp(functools.partial(_block, at, causal), at.queries(q), at.keys(k), at.keys(v))
        dq, dk, dv = pull(at.new(at.queries(gradient)))
        return at.written(sums[0], at.queries(sums[0]) + dq), at.added(sums[1], dk), at.added(sums[2], dv)

    # Keys are in many blocks: a sum in half precision would lose the smaller terms.
    wide = lambda a: jnp.zeros_like(a, jnp.promote_types(a.dtype, jnp.float32))
    dq, dk, dv = map(blocks.joined, lax.fori_loop(0, blocks.count, step, (jnp.zeros_like(q), wide(k), wide(v))))
    return dq, dk.astype(k.dtype), dv.astype(v.dtype)


blocked.defvjp(_forward, _backward)


def _block(at, causal, q, k, v):
    """`plain` for the queries of a block, [g, size, n, d]."""
    mask = None
    if causal:
        mask = (at.start + jnp.arange(q.shape[1])[:, None] >= jnp.arange(k.shape[1]))[None, None]
    return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation='xla')


def _quick_block(at, causal, q, k, v):
    """`_block` in two passes over the scores fewer, where no exponent can get out of range; without a mask.

    Softmax subtracts the largest score of a query, which is known when all of them are. The product of the lengths of a
    query and of the longest key is no smaller and known before, so exponentials are written where scores would be, and
    their sum comes out of the product with the values. They are small if that bound is far from the largest score, at
    most by twice its size: the bound must leave every weight that matters above the smallest number of the type.
    """
    length = lambda a: jnp.linalg.norm(a.astype(jnp.float32), axis=-1)
    bound = jnp.einsum('gtn,gn->gnt', length(q), length(k).max(1) * q.shape[-1] ** -0.5)[..., None]
    numbers = jnp.finfo(v.dtype)
    largest = (math.log(numbers.eps) - math.log(numbers.tiny) - math.log(k.shape[1])) / 2

    def quick():
        scores = jnp.einsum('gtnd,gsnd->gnts', q * q.shape[-1] ** -0.5, k, preferred_element_type=jnp.float32)
        weights = jnp.exp(scores - bound).astype(v.dtype)
        ones = jnp.ones((*v.shape[:-1], 8), v.dtype)  # as many as keep the width a multiple of 8
        y = jnp.einsum('gnts,gsnd->gtnd', weights, jnp.concatenate([v, ones], -1), preferred_element_type=jnp.float32)
        return (y[..., :-8] / y[..., -1:]).astype(v.dtype)

    return lax.cond(bound.max() < largest, quick, lambda: _block(at, causal, q, k, v))


class _Blocks(NamedTuple):
    """How the queries of a batch are cut into blocks: `size` queries of `group` elements of the batch at a time.

    The elements of a group are far from each other, so that a batch which is split over devices stays so: each device
    has its share of every group. The last block of a sequence begins earlier if it would have fewer queries.
    """

    group: int
    size: int
    per_sequence: int
    count: int
    length: int

    @classmethod
    def of(cls, q: jax.Array, k: jax.Array) -> '_Blocks':
        (b, t, n, _), s = q.shape, k.shape[1]
        parts = _parts(q)
        most = max(1, parts * SCORE_BYTES // (4 * n * s))  # queries of a block
        group = max(g for g in range(parts, b + 1, parts) if b % g == 0 and (g == parts or g * min(t, DEEP) <= most))
        per_sequence = math.ceil(t / min(t, max(1, most // group)))
        return cls(group, math.ceil(t / per_sequence), per_sequence, b // group * per_sequence, t)

    def cut(self, x):
        """[b, ...] -> [group, number of groups, ...]."""
        return x.reshape(self.group, -1, *x.shape[1:])

    def joined(self, x):
        return x.reshape(-1, *x.shape[2:])

    def at(self, i):
        number = i % self.per_sequence
        begin = number * self.size
        return _At(i // self.per_sequence, jnp.minimum(begin, self.length - self.size), begin, self.size)


class _At(NamedTuple):
    """Where a block is in arrays that have been cut; `begin` is its first query that no earlier block has."""

    row: jax.Array
    start: jax.Array
    begin: jax.Array
    size: int

    def queries(self, x):
        group, _, _, *rest = x.shape
        return lax.dynamic_slice(x, (0, self.row, self.start, 0, 0), (group, 1, self.size, *rest))[:, 0]

    def keys(self, x):
        return lax.dynamic_index_in_dim(x, self.row, 1, keepdims=False)

    def new(self, x):
        """Zero for queries that are in an earlier block too."""
        return jnp.where((self.start + jnp.arange(self.size) >= self.begin)[:, None, None], x, 0)

    def written(self, x, block):
        return lax.dynamic_update_slice(x, block[:, None], (0, self.row, self.start, 0, 0))

    def added(self, x, block):
        return lax.dynamic_update_index_in_dim(x, self.keys(x) + block, self.row, 1)
