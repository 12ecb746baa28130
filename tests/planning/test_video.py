"""The plan of a video has the programs that are run."""

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax.cost import cost, flops
from st2v_jax.planning import programs
from st2v_jax.planning import video as planning
from st2v_jax.planning.device import Rates
from st2v_jax.refinement.enhancer import enhance, load_enhancer
from st2v_jax.refinement.sdedit import Refiner

pytestmark = pytest.mark.usefixtures('unoptimised')
RATES = Rates(dict.fromkeys(('product', 'convolution', 'attention', 'other'), 1e12), 1e9, 1e9, 1e-6, 1e-5)


def test_a_program_takes_what_the_host_takes_to_start_it_unless_it_runs_ahead():
    array = jax.ShapeDtypeStruct((10,), jnp.float32)
    many = cost(jax.jit(lambda arrays: jax.jit(lambda a, b, c: a + b)(*arrays[:3])), [array] * 100)
    assert many.passed == 2, 'arrays that nothing reads are not passed on'
    device, host = RATES.program_seconds(many), 2 * RATES.argument
    assert planning.Stage('alone', many, 1).seconds(RATES) == device + host
    assert planning.Stage('one after the other', many, 5, ahead=True).seconds(RATES) == max(device, host)


def test_the_plan_has_what_is_run(tiny_folder):
    model = planning.abstract_model(tiny_folder, jnp.float32)
    settings = model.settings(steps=3)
    found = {stage.name: stage for stage in planning.stages(model, settings, 29)}
    assert {name: stage.repeats for name, stage in found.items()} == {
        'prompt': 1,
        'first chunk, condition': 1, 'first chunk, step': 3, 'first chunk, decoding': 1, 'first chunk, memory': 1,
        'later chunk, condition': 2, 'later chunk, step': 6, 'later chunk, decoding': 2, 'later chunk, memory': 2,
    }  # fmt: skip
    assert not any(name.startswith('later') for name in {s.name for s in planning.stages(model, settings, 16)})
    release = {stage.name: stage for stage in planning.stages(model, model.settings(steps=3, profile='release'), 29)}
    assert release['later chunk, step'].cost.flops < 0.8 * found['later chunk, step'].cost.flops
    assert planning.resident(model) == sum(4 * size for size in planning.parameters(model).values())
    assert planning.peak(list(found.values()), model) > planning.resident(model)


@pytest.mark.parametrize('span', [8, 2])
def test_the_plan_of_the_refinement_has_what_is_run(tiny_folder, span):
    """After a video is enhanced, its plan traces no program that did not run, and counts what the networks computed."""
    traced, computed, given = Counter(), Counter(), {}

    def watched(name, network):
        def run(params, *args, **options):
            kind = ' '.join([name, *options.values()])
            traced[kind] += 1
            given[kind] = jax.tree.map(jax.typeof, (params, *args))
            jax.debug.callback(lambda: computed.update([kind]))
            return network(params, *args, **options)

        return run

    loaded = load_enhancer(tiny_folder)
    unet = loaded.refiner.unet
    enhancer = dataclasses.replace(
        loaded,
        refiner=Refiner(watched('refiner', unet)),
        vae=watched('vae', loaded.vae),
        text=watched('text', loaded.text),
    )
    options = {'profile': 'release', 'decode_frames': 4}
    list(enhance(enhancer, np.zeros((15, 32, 32, 3), np.float32), 'a red ball', span=span, **options))
    jax.effects_barrier()
    assert computed == {'text': 1, 'refiner keys_values': 1, 'vae encode': 4, 'refiner': 2 * 4, 'vae decode': 4}

    run, shapes = Counter(traced), planning.abstract_enhancer(tiny_folder).params
    found = planning.counted(
        programs.refinement(
            dataclasses.replace(enhancer, params=shapes),
            enhancer.settings(span=span, variant='release'),
            (32, 32),
            15,
            **options,
        )
    )
    assert traced == run
    step = found[2]
    assert [stage.repeats for stage in found] == [1, 4, 2 * (2 if span == 2 else 1), 4]
    assert step.repeats * step.cost.flops == computed['refiner'] * flops(unet, *given['refiner'])
    assert planning.resident(enhancer) == sum(leaf.nbytes for leaf in jax.tree.leaves(enhancer.params))


def test_enhancing_is_planned_beside_the_streaming_stage(tiny_folder):
    model, enhancer = planning.abstract_model(tiny_folder), planning.abstract_enhancer(tiny_folder)
    settings = model.settings(steps=3)
    alone, both = planning.stages(model, settings, 29), planning.stages(model, settings, 29, enhancer)
    assert [stage.name for stage in both[len(alone) :]] == [
        'refining, prompt',
        'refining, encoding',
        'refining, step',
        'refining, decoding',
    ]
    assert planning.peak(both, model, enhancer) > planning.resident(model, enhancer) > planning.resident(model)
    counts = planning.parameters(model, enhancer)
    assert counts['text'] == counts['refiner_text'] and counts['refiner'] != counts['unet']
    assert 4 * sum(counts.values()) == planning.resident(model, enhancer)


@pytest.mark.slow
def test_the_plan_knows_what_saves_memory(tiny_folder):
    model = planning.abstract_model(tiny_folder, jnp.float32)
    settings = model.settings(steps=3, decode_frames=8)
    needed = planning.peak(planning.stages(model, settings, 29), model)
    assert planning.remedies(model, settings, 29, needed - 1) == ['--decode-frames 1']
    assert planning.remedies(model, settings, 29, 1) == []

    enhancer = planning.abstract_enhancer(tiny_folder, jnp.float32)
    needed = planning.peak(planning.stages(model, settings, 16, enhancer), model, enhancer)
    assert planning.remedies(model, settings, 16, needed - 1, enhancer) == ['--decode-frames 1']
