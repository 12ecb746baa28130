"""The world as array_record files, read back without TensorFlow."""

import sys

import numpy as np
import pytest

from st2v_jax.data import world
from st2v_jax.video_io import to_uint8

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore')]  # tensorflow-datasets warns about itself


def test_a_written_world_reads_back(tmp_path):
    from st2v_jax.data.world import builder as world_builder

    config = world_builder.WorldConfig(name='tiny', videos=3, held_out_videos=2, frames=4, size=32)
    builder = world_builder.World(data_dir=tmp_path, config=config, file_format='array_record')
    builder.download_and_prepare()
    assert 'tensorflow' not in sys.modules
    for split, count in (('train', 3), ('held_out', 2)):
        clips = builder.as_data_source(split)
        indices = world.split_indices(split, 0, 0, count).tolist()
        assert sorted(int(clip['index']) for clip in clips) == indices
        clip = clips[0]
        scene = world.scene(0, clip['index'])
        np.testing.assert_array_equal(clip['frames'], to_uint8(world.render(scene, np.arange(4), 32)))
        caption = clip['caption']
        assert (caption.decode() if isinstance(caption, bytes) else caption) == world.caption(scene)
        assert world.BACKGROUNDS[clip['background']] == world.describe(scene)['background']
        assert (clip['objects'][0] == [scene.colour[0], scene.shape[0], scene.pattern[0], scene.motion[0]]).all()
