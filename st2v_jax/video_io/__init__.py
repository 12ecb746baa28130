"""Videos to and from files: mp4 that can be played while it is written, gif, and series of numbered PNG frames.

Reading takes every file that ffmpeg reads, and folders of pictures. Frames come as a player or a viewer shows them:
at their times, in their colours, the right way up, with square pixels.

The settings that made a video are stored in the file's comment as JSON; `read_metadata` returns them.
"""

from st2v_jax.video_io.metadata import read_metadata
from st2v_jax.video_io.pixels import to_floats, to_uint8
from st2v_jax.video_io.reader import VideoReader, read_video, timed_frames
from st2v_jax.video_io.times import nearest
from st2v_jax.video_io.writer import VideoWriter, check_output, check_rate, is_folder

__all__ = [
    'VideoReader',
    'VideoWriter',
    'check_output',
    'check_rate',
    'is_folder',
    'nearest',
    'read_metadata',
    'read_video',
    'timed_frames',
    'to_floats',
    'to_uint8',
]
