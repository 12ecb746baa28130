"""Meshes of eight devices train like one device, and parameters are split as the table says."""

import re
from functools import partial

import jax
import numpy as np
import pytest
from configs_of import stage_config

from st2v_jax import sharding
from st2v_jax.diffusion.loss import diffusion_loss
from st2v_jax.diffusion.schedule import noise_levels
from st2v_jax.models import build
from st2v_jax.training import state, step
from st2v_jax.weights import layout

pytestmark = pytest.mark.usefixtures('unoptimised')
BATCH = 8


@pytest.fixture(scope='module')
def problem():
    """A denoiser of width 8 and one level, with all its parts: (parameters, batch, loss)."""
    model = build.ModelConfig.from_dict(stage_config('apm').model.to_dict())
    network, random = build.denoiser(model), np.random.default_rng(0)
    normal = lambda *shape: random.standard_normal(shape, np.float32)
    params = jax.tree.map(lambda leaf: leaf + 0.2 * normal(*leaf.shape), build.init(jax.random.key(0), network))
    latents = normal(BATCH, *model.latent_shape)
    batch = {
        'latents': latents,
        'noise': normal(*latents.shape),
        't': random.integers(0, 1000, BATCH, np.int32),
        'text': normal(BATCH, model.text.max_tokens, model.backbone.context_width),
        'frames': normal(BATCH, model.memory, *model.frame_size, 3),
        'anchor': normal(BATCH, model.apm.image_width),
    }
    table = noise_levels(model.diffusion)

    def loss(params, batch, remat='none'):
        anchor = network(params, batch['anchor'], method='anchor_tokens')
        condition = network(params, batch['text'], batch['frames'], anchor, method='condition')
        predict = partial(network, params, condition=condition, remat=remat)
        return diffusion_loss(predict, batch['latents'], batch['noise'], batch['t'], table, 'v'), {}

    return params, batch, loss


@pytest.fixture(scope='module')
def step_on(problem):
    """One training step of the problem on a mesh (data, fsdp, tensor) -> (state, metrics)."""
    params, batch, loss = problem
    optimizer = step.make_optimizer(clip=1.0, b1=0.9, b2=0.99, weight_decay=0.01)

    def run(*sizes):
        mesh = sharding.make_mesh(dict(zip(('data', 'fsdp', 'tensor'), sizes)), jax.devices()[: np.prod(sizes)])
        # CAM, APM, and the parts of the UNet that CAM does not copy: all kinds of layers, also after frozen ones
        trained, frozen = state.split(params, lambda path: re.search('cam/|apm/|conv_shortcut|conv_out', path))
        places = sharding.shardings(jax.eval_shape(partial(state.create, optimizer=optimizer), trained), mesh)
        place_frozen = sharding.shardings(frozen, mesh)
        create = jax.jit(partial(state.create, optimizer=optimizer), out_shardings=places, donate_argnums=0)
        one = step.make_step(lambda data, key: data, loss, optimizer, rate=lambda _: 5e-5, ema_decay=0.9)
        one = jax.jit(
            one,
            in_shardings=(places, place_frozen, None, None, None),
            donate_argnames='state',
            out_shardings=(places, sharding.replicated(mesh)),
            compiler_options=stage_config('apm').compiler_options.to_dict(),
        )
        return one(
            create(sharding.place(trained, places.params)),
            sharding.place(frozen, place_frozen),
            sharding.place(batch, sharding.split_rows(mesh)),
            np.float32(0),
            jax.random.key(0),
        )

    return run


def same(one, many):
    """Equal to 1e-5 of each array's norm."""
    for path, leaf in jax.tree.leaves_with_path(one):
        leaf, other = np.asarray(leaf), np.asarray(dict(jax.tree.leaves_with_path(many))[path])
        assert np.linalg.norm(leaf - other) <= 1e-5 * np.linalg.norm(leaf), path


@pytest.fixture(scope='module')
def on_one_device(step_on):
    return jax.device_get(step_on(1, 1, 1))


@pytest.mark.slow
@pytest.mark.parametrize('sizes', [(8, 1, 1), (2, 4, 1), (2, 2, 2)])
def test_a_mesh_trains_as_one_device(sizes, step_on, on_one_device):
    now, metrics = step_on(*sizes)
    same(on_one_device[1], metrics)
    same(on_one_device[0].params, now.params)
    same(on_one_device[0].ema, now.ema)


def test_the_full_model_is_split_evenly():
    model = build.ModelConfig()
    tree = layout.abstract(model, ('unet', 'cam', 'apm'))
    mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 2})
    places = sharding.shardings(tree, mesh)
    whole = sum(leaf.size for leaf in jax.tree.leaves(tree))
    share = sum(
        np.prod(place.shard_shape(leaf.shape)) for leaf, place in zip(jax.tree.leaves(tree), jax.tree.leaves(places))
    )
    assert share < 0.29 * whole  # a quarter, and a little more for what is split over fsdp alone


def test_layers_that_follow_each_other_are_split_by_columns_and_by_rows():
    mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 2})
    kernels = {
        'attn1': {'to_q': {'kernel': (8, 8)}, 'to_out': {'kernel': (8, 8), 'bias': (8,)}},
        'resnets': {'0': {'conv1': {'kernel': (3, 3, 8, 7)}, 'conv2': {'kernel': (3, 3, 8, 8)}}},
    }
    tree = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, 'float32'), kernels, is_leaf=lambda leaf: isinstance(leaf, tuple)
    )
    specs = jax.tree.map(lambda place: place.spec, sharding.shardings(tree, mesh))
    P = sharding.P
    assert specs['attn1'] == {
        'to_q': {'kernel': P('fsdp', 'tensor')},
        'to_out': {'kernel': P('tensor', 'fsdp'), 'bias': P()},
    }
    # tensor does not divide 7
    assert specs['resnets']['0'] == {
        'conv1': {'kernel': P(None, None, 'fsdp', None)},
        'conv2': {'kernel': P(None, None, 'tensor', 'fsdp')},
    }
