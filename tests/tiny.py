"""The tiny model of all tests."""

from st2v_jax.models.apm import ApmConfig
from st2v_jax.models.build import ModelConfig
from st2v_jax.models.cam import CamConfig
from st2v_jax.models.clip import ImageConfig, TextConfig
from st2v_jax.models.refiner import RefinerConfig
from st2v_jax.models.unet3d import UNetConfig
from st2v_jax.models.vae import VaeConfig
from st2v_jax.tokenizer import Tokenizer

WORDS = ('a', 'red', 'blue', 'ball', 'star', 'moves', 'left', 'over', 'sand')
UNET = dict(blocks=1, head_size=8, input_heads=1, context_width=16, groups=4)
TOWER = dict(width=16, layers=1, heads=2, mlp_width=16, embed_dim=16)


def tiny(**changes) -> ModelConfig:
    """A whole model of a few thousand parameters: 32x32 pixels, 4x4 latents, chunks of 16 frames with 8 of memory.

    Its Refiner makes 48x80 pixels in chunks of 6 frames that overlap by 2. changes: fields with other values.
    """
    return ModelConfig(**{
        'frame_size': (32, 32),
        'backbone': UNetConfig((8, 16), (True, False), **UNET),
        'cam': CamConfig((4, 4, 8, 8), head_size=8),
        'apm': ApmConfig(image_width=16, inner_width=16),
        'vae': VaeConfig((8, 8, 8, 8), layers_per_block=1, groups=4),
        'text': TextConfig(vocab_size=Tokenizer.for_words(WORDS).size, **TOWER),
        'image': ImageConfig(image_size=28, **TOWER),
        'guidance_text': 2.0,
        'guidance_anchor': 1.5,
        'refiner': RefinerConfig(
            UNetConfig((8, 16), (False, True), padding=(2, 1), **UNET), vae=None, text=None, box=(48, 80),
            steps=2, length=6, overlap=2,
        ),
    } | changes)  # fmt: skip
