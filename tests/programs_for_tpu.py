"""Compiles programs for a TPU v5e, on a machine without one, and prints what each takes, as one line of JSON.

libtpu reads its settings from the environment, so this is a program of its own, which test_tpu.py starts.
"""

import json
from functools import partial

import jax
import jax.numpy as jnp
import train_step
from configs_of import stage_config
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from st2v_jax import devices
from st2v_jax.checkpoint import abstract
from st2v_jax.models import build
from st2v_jax.models.attention import SpatialTransformer

CHIPS = topologies.get_topology_desc(platform='tpu', topology_name='v5e:2x4').devices


def spatial_transformer():
    """The first one of the Refiner, for a chunk of 24 frames of 1280x720."""
    config = build.ModelConfig().refiner.unet
    network = build.network(
        partial(
            SpatialTransformer, head_size=config.head_size, context_width=config.context_width, groups=config.groups
        ),
        config.channels[0],
        dtype=jnp.bfloat16,
    )
    on_chip = lambda tree: abstract(tree, jax.tree.map(lambda _: SingleDeviceSharding(CHIPS[0]), tree))
    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.bfloat16)
    heads = config.channels[0] // config.head_size, config.head_size
    given = network.abstract, shape(1, 24, 90, 160, config.channels[0]), (shape(1, 77, *heads),) * 2
    with devices.compiling_for(CHIPS[0]):
        return jax.jit(network).lower(*on_chip(given)).compile()


def training_step():
    """One of the stage cam at its tiny size, on all chips."""
    config = stage_config('cam')
    config.compiler_options = {}  # those are for a CPU
    with devices.compiling_for(CHIPS[0]):
        return train_step.compiled(config, CHIPS).run


found = {}
for program in (spatial_transformer, training_step):
    compiled = program()
    text = compiled.as_text()
    found[program.__name__] = {
        'temporary': compiled.memory_analysis().temp_size_in_bytes,
        'chips': len(jax.tree.leaves(compiled.input_shardings[0])[0].device_set),
        'kernels': text.count('tpu_custom_call'),
        'sums': text.count('all-reduce('),
    }
print(json.dumps(found))
