"""What the configs share: the three sizes of the model, and the keys of every stage.

full is the size of the released model, small that of the model that ships with the package, and tiny is just large
enough to run every line of code.
"""

from ml_collections import ConfigDict

from st2v_jax.data.caption_tokens import world_tokenizer
from st2v_jax.diffusion.log_snr import RefinerProcess
from st2v_jax.diffusion.schedule import DiffusionConfig
from st2v_jax.models.apm import ApmConfig
from st2v_jax.models.build import ModelConfig
from st2v_jax.models.cam import CamConfig
from st2v_jax.models.clip import ImageConfig, TextConfig
from st2v_jax.models.refiner import RefinerConfig
from st2v_jax.models.unet3d import UNetConfig
from st2v_jax.models.vae import VaeConfig
from st2v_jax.open_model import SHIPPED

SIZES = ('full', 'small', 'tiny')

# Names of published weights on the Hugging Face hub (docs/weights.md).
VIDEO_LDM, STREAMING, REFINER = 'damo-vilab/text-to-video-ms-1.7b', 'PAIR/StreamingT2V', 'ali-vilab/MS-Vid2Vid-XL'


def size_of(arg: str) -> str:
    """The size in `--config file.py:size`, one of SIZES; without one, full."""
    size = arg or 'full'
    if size not in SIZES:
        raise ValueError(f'a config has the sizes {", ".join(SIZES)}, not {arg!r}')
    return size


def model(size: str) -> ConfigDict:
    """The ModelConfig of a size, as a ConfigDict."""
    return ConfigDict({'full': _full, 'small': _small, 'tiny': _tiny}[size]().to_dict())


def sources(size: str, before: str, *published: str) -> tuple[str, ...]:
    """Where a stage looks for networks: in the run of the stage before it, then in published or shipped weights.

    The size tiny has no sources and trains from scratch.
    """
    if size == 'tiny':
        return ()
    if size == 'small':
        return f'runs/{before}-small/weights', str(SHIPPED)
    return f'runs/{before}/weights', *published


def run(stage: str, objective: str, size: str) -> ConfigDict:
    """The keys of every stage, with default values."""
    full, tiny = size == 'full', size == 'tiny'
    config = ConfigDict()
    config.stage = stage  # a label
    config.objective = objective  # what is trained, and on what: one of OBJECTIVES in st2v_jax/training/loop.py
    config.model = model(size)
    # which networks the stage starts from; its own are new: st2v_jax/training/init.py
    config.init = ConfigDict({'sources': (), 'networks': (), 'carried': (), 'continued': False})
    config.seed = 0
    config.dtype = 'float32' if tiny else 'bfloat16'  # type that the networks compute in; parameters are float32
    # devices along each axis; -1 means all that are left. Batches are split over data and fsdp, parameters over fsdp
    # and tensor (st2v_jax/sharding.py)
    config.mesh = ConfigDict({'data': -1, 'fsdp': 1, 'tensor': 1})
    # 'auto' joins the cluster that jax detects, if any; or a number of processes (st2v_jax/training/processes.py)
    config.distributed = ConfigDict({'processes': 'auto', 'process': 0, 'coordinator': ''})
    # For a few steps it does not pay to optimise the program; this halves the time to compile.
    fast = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}
    config.compiler_options = ConfigDict(fast if tiny else {})
    config.steps = 4 if tiny else 400_000  # the limit that is reached first ends the run
    config.max_seconds = 0.0  # for the whole command until the weights are saved; 0 means no limit
    config.batch_size = 8
    config.accumulation = (
        1  # number of parts of a batch whose gradients are computed one after the other, to save memory
    )
    config.schedule = ConfigDict()
    config.schedule.peak = 5e-5
    config.schedule.warmup = 0.002 if full else 0.05
    config.schedule.decay = 'constant' if full else 'cosine'
    config.optimizer = ConfigDict()
    config.optimizer.clip = 1.0
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.999 if full else 0.99
    config.optimizer.weight_decay = 0.01
    config.ema_decay = 0.9999 if full else 0.999
    config.log_every = 2 if tiny else 100
    config.log_flops = not tiny  # FLOP/s and their share of the matmul rate, which is measured before the first step
    config.checkpoint_every = 2 if tiny else 5000  # steps; 0 saves only at a signal
    config.data = ConfigDict()
    config.data.seed = 0
    config.data.scenes = 16 if tiny else 8192
    return config


def autoencoder(stage: str, network: str, size: str) -> ConfigDict:
    """The keys of the two stages that train an autoencoder, `network`."""
    config = run(stage, 'autoencoder', size)
    config.network = network
    config.edge_weight = 1.0  # weight of the edge distance, against blur
    config.kl_weight = 1e-5
    config.schedule.peak = {'full': 1e-4, 'small': 1e-3, 'tiny': 3e-3}[size]
    return config


def denoising(stage: str, size: str) -> ConfigDict:
    """The keys of the stages that denoise videos, and of the ablations."""
    config = run(stage, 'denoising', size)
    config.memory = False  # whether CAM receives conditioning frames
    config.anchor = False  # whether APM receives an anchor frame
    config.trained = r'unet/.*'  # pattern of parameter paths; those that `frozen` matches are not trained
    config.frozen = r''
    config.conditioning_noise = 0.0  # largest noise in the latents that conditioning frames are decoded from
    config.plain = 0  # one in so many examples has neither memory nor anchor, as a first chunk has; 0 means none
    config.dropout = ConfigDict({'text': 0.05, 'anchor': 0.05, 'both': 0.05})
    config.previews = ConfigDict()  # videos made during training, by the average of the parameters
    config.previews.every = 0  # steps; 0 makes none
    config.previews.prompts = ('a red ball moves left over sand', 'a blue star moves right over grass')
    config.previews.frames = 24
    config.previews.steps = 20
    config.data.source = 'world'  # or a folder of st2v prepare-data, or tfds:NAME, a dataset with videos and texts
    config.data.folder = ''  # where tensorflow-datasets keeps its data; '' means its default
    config.data.split = 'train'  # of that dataset
    config.data.workers = 0  # processes that read clips; 0 reads in threads
    return encoded(config, size)


def encoded(config: ConfigDict, size: str) -> ConfigDict:
    """Adds the keys for denoising encoded videos, and for a pool of them."""
    # rematerialisation, see models/unet3d.py: none keeps all values for the gradient and computes nothing twice,
    # nothing_saveable needs the least memory
    config.remat = 'nothing_saveable' if size == 'full' else 'none'
    config.data.frames = 32  # of a video in the pool; a window of these is trained on
    config.data.captions = 2  # captions of each scene
    config.data.columns = 1  # columns of the pool that are made at once, which are batch_size * frames * columns frames
    if size == 'full':
        config.data.scenes = 1024
    return config


def _full():
    return ModelConfig()


def _small():
    width = 128
    return ModelConfig(
        frame_size=(128, 128),
        backbone=UNetConfig(
            channels=(48, 96, 96),
            attention=(True, True, True),
            blocks=1,
            head_size=24,
            input_heads=4,
            context_width=width,
            groups=8,
        ),
        cam=CamConfig(conditioning_channels=(16, 32, 48, 64), head_size=24, positions=True),
        apm=ApmConfig(image_width=width, inner_width=64),
        vae=VaeConfig(block_channels=(32, 64, 80, 80), layers_per_block=1, groups=8),
        text=TextConfig(
            vocab_size=world_tokenizer().size, width=width, layers=3, heads=4, mlp_width=4 * width, embed_dim=width
        ),
        image=ImageConfig(
            image_size=128, patch=16, width=width, layers=4, heads=4, mlp_width=4 * width, embed_dim=width
        ),
        diffusion=DiffusionConfig(prediction='v', zero_terminal_snr=True),
        guidance_text=3.0,
        guidance_anchor=1.5,
        refiner=RefinerConfig(
            # no attention at 32x32 latents, where it is slow and has little effect
            unet=UNetConfig(
                channels=(64, 80, 80),
                attention=(False, True, True),
                blocks=1,
                head_size=16,
                input_heads=2,
                context_width=width,
                groups=8,
            ),
            process=RefinerProcess(scale_clean=1.0, scale_noisy=1.0),
            # the autoencoder for 128 pixels draws double outlines at 256
            vae=VaeConfig(block_channels=(32, 64, 80, 80), layers_per_block=1, groups=8),
            text=None,
            box=(256, 256),
            steps=12,
            start=299,
            guidance=2.0,
            scaled_start=False,
        ),
    )


def _tiny():
    width = 8
    return ModelConfig(
        frame_size=(16, 16),
        backbone=UNetConfig(
            channels=(8,), attention=(True,), blocks=1, head_size=8, input_heads=1, context_width=width, groups=4
        ),
        cam=CamConfig(conditioning_channels=(4, 8), head_size=8),
        apm=ApmConfig(image_width=width, inner_width=width, image_tokens=2),
        vae=VaeConfig(block_channels=(8, 8), layers_per_block=1, groups=4),
        text=TextConfig(
            vocab_size=world_tokenizer().size, width=width, layers=1, heads=1, mlp_width=16, embed_dim=width
        ),
        image=ImageConfig(image_size=16, patch=8, width=width, layers=1, heads=1, mlp_width=16, embed_dim=width),
        diffusion=DiffusionConfig(prediction='v', zero_terminal_snr=True),
        refiner=RefinerConfig(
            unet=UNetConfig(
                channels=(8,), attention=(False,), blocks=1, head_size=8, input_heads=1, context_width=width, groups=4
            ),
            vae=VaeConfig(block_channels=(8, 8), layers_per_block=1, groups=4),
            text=None,
            box=(32, 32),
            steps=2,
            length=8,
            overlap=2,
        ),
    )
