"""Captions of many scenes of the small world as token ids, made once on the host before training."""

import functools

import jax
import numpy as np

from st2v_jax.data import world
from st2v_jax.tokenizer import Tokenizer


@functools.cache
def world_tokenizer() -> Tokenizer:
    """The tokenizer of a text tower that has rows only for the words in captions of the world."""
    return Tokenizer.for_words(world.words())


def tokenizer_for(vocab_size: int) -> Tokenizer:
    """The tokenizer of a new text tower with `vocab_size` rows: for the words of the world, or for all tokens of CLIP.

    Raises ValueError if `vocab_size` is neither.
    """
    for tokenizer in (world_tokenizer(), Tokenizer()):
        if tokenizer.size == vocab_size:
            return tokenizer
    sizes = world_tokenizer().size, Tokenizer().size
    raise ValueError(
        f'a text tower has {sizes[0]} rows for the words of the world or {sizes[1]} for all of CLIP, not {vocab_size}'
    )


def token_table(tokenizer: Tokenizer, seed: int, indices: np.ndarray, variants: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [n, variants, 77] of the captions of scenes with indices [n], and the group [n] of each scene; int32.

    Scenes of a group show the same, so a caption of one describes all of them.
    """
    scenes = jax.device_get(jax.jit(jax.vmap(world.scene, (None, 0)))(seed, np.asarray(indices)))
    captions, groups = [], []
    for i in range(len(indices)):
        scene = jax.tree.map(lambda leaf, i=i: leaf[i], scenes)
        captions += [world.caption(scene, variant) for variant in range(variants)]
        groups.append(repr(world.describe(scene)))
    ids = _ids(tokenizer, captions).reshape(len(indices), variants, -1)
    return ids, np.unique(groups, return_inverse=True)[1].reshape(-1).astype(np.int32)


def _ids(tokenizer, captions):
    """`tokenizer.ids(captions)`, but each word is tokenized once: a caption has the tokens of its words, in order."""
    words = sorted({word for caption in captions for word in caption.split()})
    tokens = {word: row[1 : row.argmax()] for word, row in zip(words, tokenizer.ids(words))}
    ids = np.tile(tokenizer.ids(['']), (len(captions), 1))
    for row, caption in zip(ids, captions):
        spelled = np.concatenate([tokens[word] for word in caption.split()])
        row[1 : len(spelled) + 1] = spelled
        row[len(spelled) + 1] = tokenizer.end
    return ids
