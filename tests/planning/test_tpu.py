"""What TPU's compiler says is turned into numbers; and it compiles for a TPU here, where there is none."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from st2v_jax.errors import BadInput
from st2v_jax.planning import tpu
from st2v_jax.planning.tpu import Collective, collectives, wanted_bytes

ROOT = Path(__file__).parents[2]

# Shortened from a program for v5e:2x4: two loops with collectives inside, and a fusion of TPU's that sums and scatters.
TEXT = """\
HloModule jit_f, is_scheduled=true

%body.1 (p.1: (s32[], bf16[128,2048])) -> (s32[], bf16[128,2048]) {
  %all-gather.24 = bf16[1,2048,2048]{2,1,0:T(8,128)(2,1)S(1)} all-gather(%slice.4), channel_id=10, dimensions={1}
  ROOT %tuple.1 = (s32[], bf16[128,2048]) tuple(%add.1, %fusion.2)
}

%condition.1 (p.2: (s32[], bf16[128,2048])) -> pred[] {
  %constant.52.clone.1 = s32[]{:T(128)} constant(6)
  ROOT %lt.10 = pred[]{:T(512)} compare(%gte.2, %constant.52.clone.1), direction=LT
}

%add.clone (x.3: f32[], y.1: f32[]) -> f32[] {
  ROOT %add = f32[] add(%x.3, %y.1)
}

%all-reduce-scatter.clone.1 (input.2: f32[2048,2048]) -> f32[528,2048] {
  %all-reduce.5 = f32[2112,2048]{1,0:T(8,128)} all-reduce(%pad.6), channel_id=5, to_apply=%add.clone
}

%body.2 (p.3: (s32[], f32[128,2048])) -> (s32[], f32[128,2048]) {
  %fusion.25 = f32[528,2048]{1,0:T(8,128)S(1)} fusion(%fusion.24), kind=kCustom, calls=%all-reduce-scatter.clone.1
  %while.3 = (s32[], bf16[128,2048]) while(%tuple.5), condition=%condition.1, body=%body.1
  ROOT %tuple.2 = (s32[], f32[128,2048]) tuple(%add.2, %fusion.25)
}

%condition.2 (p.4: (s32[], f32[128,2048])) -> pred[] {
  %constant.9 = s32[]{:T(128)} constant(4)
  ROOT %lt.11 = pred[] compare(%gte.3, %constant.9), direction=LT
}

ENTRY %main.5_spmd (param.4: f32[128,2048]) -> f32[256,2048] {
  %all-reduce.7 = (f32[]{:T(128)}, bf16[3,3,4,8]{3,2,1,0:T(4,128)S(1)}, /*index=2*/pred[16]{0}) all-reduce(%a, %b, %c)
  %permute-start = (f32[3,2048]{1,0:T(4,128)S(1)}, f32[3,2048]{1,0:T(4,128)S(1)}, u32[]{:S(2)}, u32[]{:S(2)}) \
collective-permute-start(%slice.6), channel_id=7, source_target_pairs={{0,1},{1,2}}
  %permute-done = f32[3,2048]{1,0:T(4,128)S(1)} collective-permute-done(%permute-start)
  %while.1 = (s32[], f32[128,2048]) while(%tuple.3), condition=%condition.2, body=%body.2, metadata={op_name="while"}
  ROOT %fusion.9 = f32[256,2048] fusion(%all-reduce.7), kind=kLoop, calls=%add.clone
}
"""


def test_collectives_count_for_each_round_of_their_loops():
    found = collectives(TEXT)
    assert found['all-gather'] == Collective(24, 24 * 2 * 2048 * 2048)  # a loop of 6 within a loop of 4
    assert found['reduce-scatter'] == Collective(4, 4 * 4 * 2112 * 2048)


def test_collectives_of_several_arrays_count_once_and_what_is_done_is_not_counted_again():
    found = collectives(TEXT)
    assert found['all-reduce'] == Collective(1, 4 + 2 * 3 * 3 * 4 * 8 + 16)
    assert found['collective-permute'] == Collective(1, 4 * 3 * 2048)
    assert set(found) == {'all-gather', 'reduce-scatter', 'all-reduce', 'collective-permute'}


def test_a_program_for_one_chip_exchanges_nothing():
    program = jax.jit(lambda x: jax.lax.fori_loop(0, 5, lambda _, x: x @ x, x))
    assert collectives(program.lower(jax.ShapeDtypeStruct((8, 8), 'float32')).compile().as_text()) == {}


@pytest.mark.parametrize(
    ('message', 'wanted'),
    [
        (
            'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (16.25G) '
            'exceeds available HBM (15.75G).',
            16.25 * 2**30,
        ),
        (
            'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (1.50T) '
            'exceeds available HBM (31.25G).',
            1.5 * 2**40,
        ),
        (
            'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 94.31G '
            'of 15.75G hbm. Exceeded hbm capacity by 78.56G.',
            94.31 * 2**30,
        ),
        ('RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used 17.01M of 16.00M vmem.', None),
        ('INTERNAL: Mosaic failed to compile', None),
    ],
)
def test_an_error_of_the_compiler_says_how_much_a_program_wants(message, wanted):
    assert wanted_bytes(message) == (None if wanted is None else int(wanted))


@pytest.mark.parametrize('name', ['', 'v5e', 'v5e:', 'v5e:8', 'v5e:0x4', 'v9:2x4', '2x4', 'v5e:2x4x', 'v5p:2x2x1x1'])
def test_a_target_that_is_none_is_refused_with_the_kinds_of_chips(name):
    with pytest.raises(BadInput, match='v4, v5e, v5p, v6e .*v5e:2x4'):
        tpu.target(name)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason="needs libtpu: pip install -e '.[tpu]'")
def test_eight_chips_enhance_a_video_in_the_memory_that_the_plan_prints(tmp_path):
    file = tmp_path / 'numbers.json'
    command = ['plan', '--target', 'v5e:2x4', '--for', 'enhance', '--config', 'cam:tiny', '--parts', 'prompt,step']
    done = subprocess.run(
        [sys.executable, '-m', 'st2v_jax', *command, '--json', str(file)],
        cwd=ROOT,
        env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(file.read_text('utf-8'))
    assert found['chips'] == 8 and found['memory'] == int(15.75 * 2**30)
    prompt, step = found['programs']
    assert (prompt['name'], step['name']) == ('refining, prompt', 'refining, step')
    assert prompt['fits'] and step['fits'] and 'refining, step' in done.stdout
    # all networks of the stage stay there while a step runs
    assert step['arguments'] > prompt['arguments'] > 0
    parts = sum(step[name] for name in ('arguments', 'outputs', 'temporary'))
    assert parts < step['total'] < found['memory']
    assert prompt['collectives'] == {}
    assert sum(sums['bytes'] for sums in step['collectives'].values()) > 0
