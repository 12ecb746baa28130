"""The folder for VBench has its names, and a list with the whole prompts."""

import json

import pytest

from st2v_jax.errors import BadInput
from st2v_jax.evaluation import vbench
from st2v_jax.evaluation.given_videos import GivenVideo


def given(tmp_path, *prompts):
    videos = []
    for number, prompt in enumerate(prompts):
        path = tmp_path / f'{number}.MP4'
        path.write_bytes(bytes(number + 1))
        videos.append(GivenVideo(path, path.name, prompt))
    return videos


def test_names_are_prompts_with_the_index_of_the_repeat(tmp_path):
    long = 'a very long prompt ' * 40
    videos = given(tmp_path, 'a ball', 'night/day', 'a ball', long)
    into = vbench.write(tmp_path / 'v', videos)
    names = {path.name: path.read_bytes() for path in into.iterdir()}
    assert set(names) >= {'a ball-0.mp4', 'a ball-1.mp4', 'night day-0.mp4'} and names['a ball-1.mp4'] == bytes(3)
    listed = json.loads((tmp_path / 'v' / 'prompts.json').read_text())
    assert set(listed) == set(names) and listed['night day-0.mp4'] == 'night/day' and long in listed.values()
    assert all(len(name.encode()) <= 255 for name in names)


def test_a_second_run_changes_nothing_and_a_file_of_somebody_else_stays(tmp_path):
    videos = given(tmp_path, 'a ball')
    name = vbench.write(tmp_path / 'v', videos) / 'a ball-0.mp4'
    assert vbench.write(tmp_path / 'v', videos) / 'a ball-0.mp4' == name and name.read_bytes() == bytes(1)
    name.unlink()
    name.write_bytes(b'mine')
    with pytest.raises(BadInput, match='is there already'):
        vbench.write(tmp_path / 'v', videos)
    assert name.read_bytes() == b'mine'


def test_without_links_files_are_copied(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError('no links here')

    monkeypatch.setattr('os.symlink', refuse)
    name = vbench.write(tmp_path / 'v', given(tmp_path, 'a ball')) / 'a ball-0.mp4'
    assert not name.is_symlink() and name.read_bytes() == bytes(1)


def test_a_video_without_a_prompt_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(BadInput, match='1.MP4 has none'):
        vbench.write(tmp_path / 'v', given(tmp_path, 'a ball', None))
    assert not (tmp_path / 'v').exists()
