"""Frames into the file that the user asked for, and what the user reads when that ends."""

import contextlib
import os

from st2v_jax import errors, video_io
from st2v_jax.cli.report import fail


def save(pieces, output, fps, metadata, progress, *, lower, kept=None) -> int:
    """Writes frames as they are made; says how it went and returns the exit code.

    pieces: iterator over frames [n,H,W,3]; all of the work happens in it.
    metadata: what is stored in the file; its 'command' makes the video again.
    lower: the options that take less memory.
    kept: a file that `pieces` leaves behind when it is stopped.
    """
    again, video = f'again: {metadata["command"]}', None
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(progress)
            for frames in pieces:
                if video is None:  # only now: a run that fails earlier leaves an existing file as it was
                    size = frames.shape[1:3]
                    video = stack.enter_context(video_io.VideoWriter(output, fps, size, metadata))
                video.write(frames)
                progress.to(video.frames)
    except KeyboardInterrupt:
        written = f'{video.frames} of {progress.total} frames are in {output}' if video else 'nothing was written'
        if kept is not None and os.path.exists(kept):
            written += f', the video before its enhancement is in {kept}'
        return fail(f'{written}; {again}', 130, 'stopped')
    except (errors.InputError, errors.OutputError) as error:
        return fail(error, 2)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        lower = ', or '.join([*lower, '--weights with a smaller model'])
        return fail(f'out of device memory; lower what it needs: {lower}', 1)
    except OSError as error:
        return fail(f'{output}: {error.strerror or error}', 1)
    if not progress.quiet:
        print(f'saved {output} ({video.frames} frames, {video.frames / fps:.1f} s); {again}', flush=True)
    return 0
