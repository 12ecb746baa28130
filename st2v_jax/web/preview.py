"""What a chunk looks like while it is denoised: one frame, decoded of the clean latents that a step predicted."""

import io

from PIL import Image

from st2v_jax.sessions.session import Session, Step
from st2v_jax.streaming import stream
from st2v_jax.video_io import to_uint8


def preview(session: Session, branch: str, step: Step) -> bytes:
    """A PNG file of the last frame of the chunk in work; it costs the decoding of one frame."""
    model = session.model
    run = stream.programs(model.system, session.branch(branch).recipe(step.chunk).settings)
    frames = run.decode(model.params, step.predicted[:, -model.config.contract.group_latents :])
    file = io.BytesIO()
    Image.fromarray(to_uint8(frames[0, -1])).save(file, 'PNG')
    return file.getvalue()
