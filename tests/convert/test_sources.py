"""The files in a folder or a repository that are read."""

import pytest

from st2v_jax.convert.sources import is_repository, weight_files


@pytest.mark.parametrize(
    'names, chosen',
    [
        (['a.bin', 'a.safetensors', 'a.fp16.safetensors'], ['a.safetensors']),
        (['a.fp16.bin', 'a.bin', 'a.fp16.safetensors'], ['a.bin']),
        (['x/config.json', 'x/pytorch_model.bin', 'x/model.safetensors', 'x/other.bin'], ['x/model.safetensors']),
        (
            ['m-00001-of-00002.bin', 'm-00002-of-00002.bin', 'm.bin.index.json', 'n.fp16-00001-of-00001.safetensors',
             'n.safetensors.index.fp16.json'],
            ['m.bin.index.json', 'n.safetensors.index.fp16.json'],
        ),
        (['a.ckpt', 'b.pth', 'c.txt', 'd.json'], ['a.ckpt', 'b.pth']),
    ],
)  # fmt: skip
def test_of_several_copies_of_a_model_one_is_read(names, chosen):
    assert weight_files(names) == chosen


def test_a_repository_is_two_words_and_a_slash():
    assert is_repository('damo-vilab/text-to-video-ms-1.7b')
    assert not any(is_repository(place) for place in ('weights', '/weights', 'a/b/c', './weights/', 'a b/c', ''))
