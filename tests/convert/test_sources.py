"""The files in a folder or a repository that are read."""

import huggingface_hub
import pytest
import requests
from huggingface_hub import errors

from st2v_jax.convert.sources import is_repository, look, weight_files


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


def test_a_repository_is_two_words_and_a_slash_and_no_folder_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_repository('damo-vilab/text-to-video-ms-1.7b') and is_repository('runs/cam')
    paths = ('weights', '/weights', 'a/b/c', './weights/', './weights', '../weights', '~/weights', 'a b/c', '', 'ä/b')
    assert not any(is_repository(place) for place in paths)
    (tmp_path / 'runs').mkdir()
    assert not is_repository('runs/cam'), 'a mistyped folder is not asked for on the network'


@pytest.mark.parametrize(
    'raised, told',
    [
        (ConnectionError('no route'), r'hub cannot be reached \(ConnectionError\)'),
        (TimeoutError(), r'hub cannot be reached \(TimeoutError\)'),
        (errors.RepositoryNotFoundError, r'hub has no such model \(RepositoryNotFoundError\)'),
        (errors.GatedRepoError, 'to those who accept its terms: do so on its page, then `hf auth login`'),
    ],
    ids=['no network', 'slow network', 'unknown', 'gated'],
)
def test_the_hub_is_asked_once_and_quickly(raised, told, tmp_path, monkeypatch):
    asked = []

    def model_info(repository, *, timeout):
        asked.append((repository, timeout))
        raise raised if isinstance(raised, Exception) else raised('', response=answer_of_the_hub())

    monkeypatch.setattr(huggingface_hub, 'model_info', model_info)
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=told) as error:
        look('runs/cam')
    ((repository, timeout),) = asked
    assert repository == 'runs/cam' and timeout <= 10 and '\n' not in str(error.value)


def answer_of_the_hub():
    """An answer of the hub: not found."""
    answer = requests.Response()
    answer.status_code = 404
    return answer
