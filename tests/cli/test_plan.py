"""`st2v plan` refuses what it cannot plan before anything is compiled."""

import importlib.util

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
