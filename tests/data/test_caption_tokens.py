"""Captions of many scenes as token ids."""

import jax
import numpy as np

from st2v_jax.data import world
from st2v_jax.data.caption_tokens import token_table, world_tokenizer


def test_a_caption_table_has_every_wording_in_the_towers_rows():
    tokenizer = world_tokenizer()
    indices = world.split_indices('train', 0, 0, 6)
    ids, group = token_table(tokenizer, 0, indices, 3)
    assert ids.shape == (6, 3, 77) and group.shape == (6,) and ids.dtype == np.int32
    assert (ids != 0).all()  # row 0 stands for unknown words
    assert (ids.max(axis=-1) == tokenizer.end).all()
    scene = jax.device_get(world.scene(0, int(indices[4])))
    np.testing.assert_array_equal(ids[4], tokenizer.ids([world.caption(scene, v) for v in range(3)]))
