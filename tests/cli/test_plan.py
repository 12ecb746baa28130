"""`st2v plan` refuses what it cannot plan, and names what helps where a program does not fit."""

import importlib.util
import json

import jax
import pytest

from st2v_jax.cli import plan
from st2v_jax.cli.run import main


@pytest.mark.parametrize(
    ('words', 'rule'),
    [
        (['--for', 'sample', '--parts', 'encoding'], 'sample has the parts prompt, condition, step, decoding, memory'),
        (['--for', 'train', '--parts', 'step,decoding'], 'train has the parts step, not decoding'),
        (['--for', 'train', '--weights', 'folder'], 'from its config: leave out --weights'),
    ],
)
def test_what_a_verb_does_not_have_is_refused(words, rule, capsys):
    assert main(['plan', '--target', 'v5e:2x4', *words]) == 2
    assert rule in capsys.readouterr().err


@pytest.mark.parametrize(
    'words', [['--for', 'sample'], ['--target', 'v5e:2x4'], ['--target', 'v5e:2x4', '--for', 'fly']]
)
def test_a_target_and_a_verb_are_needed(words, capsys):
    with pytest.raises(SystemExit):
        main(['plan', *words])
    assert capsys.readouterr().err.startswith('error: ')


def test_without_libtpu_one_line_says_how_to_install_it(monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'libtpu' else found(name))
    assert main(['plan', '--target', 'v5e:2x4', '--for', 'sample']) == 2
    assert capsys.readouterr().err == "error: libtpu is not installed: pip install 'st2v_jax[tpu]'\n"


@pytest.mark.slow
def test_each_part_is_a_program_of_its_verb(tiny_folder, tmp_path):
    """The parts that can be asked for are those that the programs have."""
    from st2v_jax.planning import programs
    from st2v_jax.planning.video import abstract_enhancer, abstract_model

    model, enhancer = abstract_model(tiny_folder), abstract_enhancer(tiny_folder)
    streaming = programs.streaming(model, model.settings(), 29)
    refinement = programs.refinement(enhancer, enhancer.settings(), (32, 32), 29, profile='paper', decode_frames=4)
    assert {program.part for program in streaming} == set(plan.PARTS['sample'])
    assert {program.part for program in refinement} == set(plan.PARTS['enhance'])


@pytest.fixture
def compiler(monkeypatch):
    """Stands in for TPU's compiler: {decode_frames or 'step': bytes that a program wants}; eight devices are chips."""
    from st2v_jax.planning import tpu
    from st2v_jax.training.planned import PlannedStep

    wanted = {}
    monkeypatch.setattr(plan, 'ENVIRONMENT', {})
    monkeypatch.setattr(plan, 'require', lambda *_: None)
    monkeypatch.setattr('importlib.metadata.version', lambda _: '0')
    monkeypatch.setattr(tpu, 'target', lambda name: tpu.Target(name.partition(':')[0], tuple(jax.devices())))
    monkeypatch.setattr(tpu, 'lowered', lambda program, place: len(program.arguments[-1]))
    monkeypatch.setattr(PlannedStep, 'lower', lambda self: 'step')

    def compiled(key):
        size = wanted.get(key, 2**20)
        if size > tpu.MEMORY['v5e'] * 2**30:
            return tpu.Compiled(1.0, False, size)
        return tpu.Compiled(1.0, True, size, size, 0, 0, {'all-reduce': tpu.Collective(2, 2**30)})

    monkeypatch.setattr(tpu, 'compiled', compiled)
    return wanted


@pytest.mark.slow
def test_decoding_that_does_not_fit_is_compiled_again_with_one_frame(compiler, tmp_path, capsys):
    compiler[4] = 20 * 2**30  # of an enhancement, whose frames are the last argument
    file = tmp_path / 'plan.json'
    words = ['--for', 'enhance', '--config', 'cam:tiny', '--parts', 'encoding,step', '--json', str(file)]
    assert main(['plan', '--target', 'v5e:2x4', *words]) == 0
    assert 'wants 20 of 15.75 GiB; what helps: --decode-frames 1\n' in capsys.readouterr().out
    encoding, step = json.loads(file.read_text('utf-8'))['programs']
    assert not encoding['fits'] and encoding['helps'] == '--decode-frames 1' and encoding['arguments'] is None
    assert step['fits'] and step['collectives'] == {'all-reduce': {'count': 2, 'bytes': 2**30}}
    compiler[1] = 20 * 2**30
    assert main(['plan', '--target', 'v5e:2x4', *words]) == 0
    assert 'what helps: a chip of v5p or v6e\n' in capsys.readouterr().out


@pytest.mark.slow
def test_a_training_step_that_does_not_fit_is_split_further(compiler, tmp_path, capsys):
    compiler['step'] = int(15.75 * 2**30) + 2**18  # a little more than there is: half of the state is enough
    file = tmp_path / 'plan.json'
    words = ['--for', 'train', '--config', 'cam:tiny', '--json', str(file)]
    assert main(['plan', '--target', 'v5e:2x4', *words]) == 0
    shown = capsys.readouterr().out
    assert 'a chip holds between steps, GiB: parameters and average' in shown and 'mesh data 8 x fsdp 1' in shown
    found = json.loads(file.read_text('utf-8'))
    assert found['programs'][0]['helps'] == '--config.mesh.fsdp=4'
    assert found['mesh'] == {'data': 8, 'fsdp': 1, 'tensor': 1}
    assert set(found['held']) == {'parameters and average', 'optimizer', 'frozen', 'examples'}
