"""Costs that are known by hand, and the plan of a video made of them."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from st2v_jax.cost import Kernel, Rates, cost, flops
from st2v_jax.models import build
from st2v_jax.planning import video as planning
from st2v_jax.refinement import enhancer as video_to_video
from st2v_jax.refinement import sdedit as refine

pytestmark = pytest.mark.usefixtures('unoptimised')
F32 = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
RATES = Rates(dict.fromkeys(('product', 'convolution', 'attention', 'other'), 1e12), 1e9, 1e9, 1e-6, 1e-5)


def kinds(function, *args):
    return [(kernel.kind, kernel.bytes) for kernel in cost(function, *args).kernels]


def test_flops_of_known_programs():
    a, b = F32(3, 4), F32(4, 5)
    assert flops(jnp.matmul, a, b) == 2 * 3 * 4 * 5
    assert flops(jax.jit(lambda a: jax.lax.scan(lambda x, _: (x @ x, None), a, length=7)[0]), F32(2, 2)) == 7 * 16
    convolve = lambda x, k: jax.lax.conv_general_dilated(
        x, k, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    assert flops(convolve, F32(1, 8, 8, 3), F32(3, 3, 3, 6)) == 2 * 4 * 4 * 6 * 9 * 3
    either = lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x, lambda x: x @ x, x)
    assert flops(either, F32(2, 2)) == 16


def test_what_is_elementwise_reaches_memory_once():
    x = F32(10, 10)
    assert kinds(lambda x: jnp.tanh(x * 2) + 1, x) == [('elementwise', 800)]
    assert kinds(lambda x: jnp.tanh(x) @ x, x) == [('elementwise', 800), ('product', 1200)]
    assert kinds(lambda x: jnp.sum(x * 2), x) == [('reduction', 404)]
    mean_and_square = lambda x: (x.sum(), jnp.square(x).sum())
    assert kinds(mean_and_square, x) == [('reduction', 404)], 'moments are taken in one pass'


def test_peak_memory_counts_what_lives_together():
    x = F32(100, 100)
    chain = lambda x: ((x @ x) @ x) @ x
    assert cost(chain, x).temporary == 2 * 40_000 and cost(chain, x).arguments == 40_000
    assert cost(lambda x: [x @ x, x @ x, x @ x], x).temporary == 3 * 40_000
    loop = lambda x: jax.lax.scan(lambda x, _: ((x @ x) @ x, None), x, length=5)[0]
    assert cost(loop, x).temporary == pytest.approx(3 * 40_000, abs=40_000)


def test_a_kernel_takes_its_arithmetic_or_its_traffic():
    assert RATES.seconds(Kernel('convolution', 10**12, 10**6)) == pytest.approx(1, rel=0.01)
    assert RATES.seconds(Kernel('convolution', 10**6, 10**9)) == pytest.approx(1, rel=0.01)
    assert RATES.seconds(Kernel('elementwise', 0, 0)) == 1e-6


def test_a_program_takes_what_the_host_takes_to_start_it_unless_it_runs_ahead():
    many = cost(jax.jit(lambda arrays: jax.jit(lambda a, b, c: a + b)(*arrays[:3])), [F32(10)] * 100)
    assert many.handed == 2, 'arrays that nothing reads are not handed on'
    device, host = many.seconds(RATES), 2 * RATES.argument
    assert planning.Stage('alone', many, 1).seconds(RATES) == device + host
    assert planning.Stage('one after the other', many, 5, ahead=True).seconds(RATES) == max(device, host)


def test_flops_of_the_released_step_are_those_that_were_measured_with():
    config = build.ModelConfig()
    network = build.denoiser(config, jnp.bfloat16)
    text = jax.ShapeDtypeStruct((2, 77, 1024), jnp.bfloat16)
    frames = jax.ShapeDtypeStruct((2, 8, 256, 256, 3), jnp.bfloat16)
    condition = lambda *given: network(*given, method='condition')
    given = network.abstract, text, frames, jax.ShapeDtypeStruct((2, 1024), jnp.bfloat16)
    step = cost(network, network.abstract, F32(2, 16, 32, 32, 4), F32(2), jax.eval_shape(condition, *given))
    assert step.flops == pytest.approx(11.75e12, rel=0.01)  # as docs/performance/denoise-step.json has it


def test_the_plan_is_of_what_is_run(tiny_folder):
    model = planning.abstract_model(tiny_folder, jnp.float32)
    settings = model.settings(steps=3)
    found = {stage.name: stage for stage in planning.stages(model, settings, 29)}
    assert {name: stage.repeats for name, stage in found.items()} == {
        'prompt': 1,
        'first chunk, condition': 1, 'first chunk, step': 3, 'first chunk, decoding': 1,
        'later chunk, condition': 2, 'later chunk, step': 6, 'later chunk, decoding': 2,
    }  # fmt: skip
    assert not any(name.startswith('later') for name in {s.name for s in planning.stages(model, settings, 16)})
    release = {stage.name: stage for stage in planning.stages(model, model.settings(steps=3, profile='release'), 29)}
    assert release['later chunk, step'].cost.flops < 0.8 * found['later chunk, step'].cost.flops
    assert planning.resident(model) == sum(4 * size for size in planning.parameters(model).values())
    assert planning.peak(list(found.values()), model) > planning.resident(model)


@pytest.mark.parametrize('span', [8, 2])
def test_the_plan_of_the_refinement_is_of_what_is_run(tiny_folder, span, monkeypatch):
    seen = []

    def watched(module, name):
        program = getattr(module, name)

        def watch(*args):
            arrays = [arg for arg in args if isinstance(arg, (dict, tuple, list)) or hasattr(arg, 'shape')]
            seen.append((name, str(jax.tree.map(jnp.shape, arrays))))
            return program(*args)

        monkeypatch.setattr(module, name, watch)

    for name in ('_condition', '_encode', '_decode'):
        watched(video_to_video, name)
    for name in ('_whole_step', '_span_step'):
        watched(refine, name)
    frames, profile = np.zeros((15, 32, 32, 3), np.uint8), {'profile': 'release', 'decode_frames': 4}
    enhancer = video_to_video.load_enhancer(tiny_folder)
    list(video_to_video.enhance(enhancer, frames, 'a red ball', span=span, **profile))
    run, seen[:] = Counter(seen), []

    abstract = planning.abstract_enhancer(tiny_folder)
    settings = abstract.settings(span=span, variant='release')
    found = planning.refinement(abstract, settings, (32, 32), 15, **profile)
    step, runs = ('_whole_step', 1) if span == 8 else ('_span_step', 2)
    assert set(seen) == set(run), 'programs and the shapes they are given'
    repeats = dict(zip(('_condition', '_encode', step, '_decode'), (1, 4, 2 * runs, 4)))
    assert {name: count for (name, _), count in run.items()} == repeats
    assert [stage.repeats for stage in found] == list(repeats.values())
    assert planning.resident(abstract) == sum(leaf.nbytes for leaf in jax.tree.leaves(enhancer.params))


def test_enhancing_is_planned_beside_the_streaming_stage(tiny_folder):
    model, enhancer = planning.abstract_model(tiny_folder), planning.abstract_enhancer(tiny_folder)
    settings = model.settings(steps=3)
    alone, both = planning.stages(model, settings, 29), planning.stages(model, settings, 29, enhancer)
    assert [stage.name for stage in both[len(alone):]] == [
        'refining, prompt', 'refining, encoding', 'refining, step', 'refining, decoding']
    assert planning.peak(both, model, enhancer) > planning.resident(model, enhancer) > planning.resident(model)
    counts = planning.parameters(model, enhancer)
    assert counts['text'] == counts['refiner_text'] and counts['refiner'] != counts['unet']
    assert 4 * sum(counts.values()) == planning.resident(model, enhancer)


def test_the_plan_knows_what_saves_memory(tiny_folder):
    model = planning.abstract_model(tiny_folder, jnp.float32)
    settings = model.settings(steps=3, decode_frames=8)
    needed = planning.peak(planning.stages(model, settings, 29), model)
    assert planning.remedies(model, settings, 29, needed - 1) == ['--decode-frames 1']
    assert planning.remedies(model, settings, 29, 1) == []

    enhancer = planning.abstract_enhancer(tiny_folder, jnp.float32)
    needed = planning.peak(planning.stages(model, settings, 16, enhancer), model, enhancer)
    assert planning.remedies(model, settings, 16, needed - 1, enhancer) == ['--decode-frames 1']
