"""Videos of any program: which are found, what they are called, and what was asked for in them."""

import json

import numpy as np
import pytest

from st2v_jax.errors import BadInput
from st2v_jax.evaluation.given_videos import find, read_prompts
from st2v_jax.video_io import VideoWriter


def write(path, metadata=None, frames=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, 8, (32, 32), metadata) as video:
        video.write(np.zeros((frames, 32, 32, 3), np.uint8))
    return path


def test_a_folder_gives_its_video_files_with_what_ours_store(tmp_path):
    write(tmp_path / 'b.mp4', {'prompt': 'a ball', 'seed': 3})
    write(tmp_path / 'a.gif')
    write(tmp_path / 'inner' / 'c.mp4')
    (tmp_path / 'notes.txt').write_text('')
    (tmp_path / '.hidden.mp4').write_bytes(b'')
    found = find([str(tmp_path)])
    assert [(video.file, video.prompt, video.seed) for video in found] == [
        ('a.gif', None, None),
        ('b.mp4', 'a ball', 3),
    ]


def test_names_are_relative_to_what_all_have_in_common(tmp_path):
    for name in ('x/1.mp4', 'x/2.mp4', 'y/1.mp4'):
        write(tmp_path / name)
    names = lambda *given: [video.file for video in find([str(tmp_path / each) for each in given])]
    assert names('*/1.mp4') == ['x/1.mp4', 'y/1.mp4'] == names('**/1.mp4')
    assert names('x', 'y') == ['x/1.mp4', 'x/2.mp4', 'y/1.mp4']
    assert names('x/2.mp4') == ['2.mp4'] and names('x', 'x/2.mp4') == ['1.mp4', '2.mp4']


def test_a_pattern_takes_folders_of_frames(tmp_path):
    write(tmp_path / 'frames-a' / 'frame.png')
    (video,) = find([str(tmp_path / 'frames-*')])
    assert video.file == 'frames-a' and video.stamp()['bytes'] > 0


@pytest.mark.parametrize('given', ['none', 'none/*.mp4', '.'])
def test_where_nothing_is_found_is_told(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match='there (are|is) no video'):
        find([given])


def test_prompts_come_from_the_list_before_the_file(tmp_path):
    write(tmp_path / 'a.mp4', {'prompt': 'stored'})
    write(tmp_path / 'b.mp4', {'prompt': 'stored'})
    prompts = tmp_path / 'p.jsonl'
    prompts.write_text('{"file": "b.mp4", "prompt": "listed", "frames": 3}\n')
    assert [video.prompt for video in find([str(tmp_path)], prompts)] == ['stored', 'listed']


@pytest.mark.parametrize('line', ['{"file": "a.mp4"}', '{"prompt": "x"}', '{"file": 3, "prompt": "x"}', 'x', '[]'])
def test_a_line_without_file_and_prompt_is_refused(line, tmp_path):
    file = tmp_path / 'p.jsonl'
    file.write_text(json.dumps({'file': 'a', 'prompt': 'b'}) + f'\n{line}\n')
    with pytest.raises(ValueError, match='p.jsonl, line 2'):
        read_prompts(file)


def test_what_does_not_open_is_found_all_the_same(tmp_path):
    (tmp_path / 'bad.mp4').write_bytes(b'junk')
    (video,) = find([str(tmp_path)])
    assert not video.opens and video.prompt is None
