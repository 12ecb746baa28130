"""Config values out of their range are told in one line, with key, rule and value, before anything is loaded."""

import math
import re

import pytest
from configs_of import ABLATIONS, STAGES, stage_config
from ml_collections import ConfigDict

from st2v_jax.training.ranges import RULES, check

WHOLE = 'a whole number of at least'
WRONG = {
    ('steps', '0'): f'{WHOLE} 1, not 0',
    ('batch_size', '-4'): f'{WHOLE} 1, not -4',
    ('batch_size', '0'): f'{WHOLE} 1, not 0',
    ('accumulation', '0'): f'{WHOLE} 1, not 0',
    ('log_every', '0'): f'{WHOLE} 1, not 0',
    ('checkpoint_every', '-1'): f'{WHOLE} 0, not -1',
    ('max_seconds', '-1'): 'a number of at least 0, not -1.0',
    ('max_seconds', '1e999'): 'a number of at least 0, not inf',
    ('schedule.peak', '-1e-4'): 'a number above 0, not -0.0001',
    ('schedule.peak', '0'): 'a number above 0, not 0.0',
    ('schedule.peak', '1e999'): 'a number above 0, not inf',
    ('schedule.peak', '1e999-1e999'): "of type float, not '1e999-1e999'",
    ('schedule.peak', 'nan'): "of type float, not 'nan'",
    ('schedule.warmup', '1'): 'a number of at least 0 and below 1, not 1.0',
    ('schedule.decay', 'step'): "one of constant, linear, cosine, not 'step'",
    ('optimizer.b2', '1.0'): 'a number of at least 0 and below 1, not 1.0',
    ('optimizer.clip', '0'): 'a number above 0, not 0.0',
    ('ema_decay', '1.5'): 'a number of at least 0 and below 1, not 1.5',
    ('seed', '-1'): 'a whole number between 0 and 4294967295, not -1',
    ('data.seed', '4294967296'): 'a whole number between 0 and 4294967295, not 4294967296',
    ('dtype', 'float99'): "one of float32, bfloat16, float16, not 'float99'",
    ('remat', 'all'): "one of none, .*, not 'all'",
    ('trained', '('): r"a regular expression, not '\('",
    ('mesh.fsdp', '0'): '-1 or a whole number of at least 1, not 0',
    ('mesh.data', '-2'): '-1 or a whole number of at least 1, not -2',
    ('dropout.text', '1.5'): 'a number from 0 to 1, not 1.5',
    ('plain', '1'): '0 or a whole number of at least 2, not 1',
    ('conditioning_noise', '-0.1'): 'a number of at least 0, not -0.1',
    ('previews.every', '-5'): f'{WHOLE} 0, not -5',
    ('data.captions', '0'): f'{WHOLE} 1, not 0',
    ('data.workers', '-1'): f'{WHOLE} 0, not -1',
    ('data.frames', '15'): f'{WHOLE} 16, not 15',
    ('data.columns', '3'): 'divides data.scenes / batch_size = 2, unlike 3',
    ('data.scenes', '12'): 'a multiple of batch_size=8, not 12',
}


@pytest.mark.parametrize('case', WRONG, ids='='.join)
def test_a_value_out_of_its_range_is_told_with_its_key(case):
    key, value = case
    with pytest.raises(ValueError) as error:
        stage_config('cam', **{key: value})
    assert re.fullmatch(rf'config key {key} (is )?{WRONG[case]}', str(error.value)), str(error.value)


@pytest.mark.parametrize('key, value', [('starts', '(0, 599)'), ('starts', '(599, 199)'), ('starts', '(5,)'),
                                        ('dropout', '1.1'), ('source_noise', '-1')])  # fmt: skip
def test_those_of_the_refiner_too(key, value):
    with pytest.raises(ValueError, match=f'config key {key} is '):
        stage_config('refiner', **{key: value})


@pytest.mark.parametrize('key', ['model.vae.groups', 'model.text.heads', 'model.image.patch'])
def test_sizes_that_do_not_divide_are_no_model(key):
    for value in ('0', '7'):
        with pytest.raises(ValueError, match='config.model is no model: '):
            stage_config('cam', **{key: value})


def test_a_batch_is_cut_into_equal_parts():
    with pytest.raises(ValueError, match='config key batch_size is a multiple of accumulation=3, not 8'):
        stage_config('cam', accumulation='3')


def test_shares_that_exceed_the_whole_are_told():
    with pytest.raises(ValueError, match='the shares of config.dropout are at most 1 together, not 1.2'):
        stage_config('cam', **{'dropout.text': '0.6', 'dropout.both': '0.55'})


def test_two_chunks_take_twice_the_frames():
    with pytest.raises(ValueError, match=f'config key data.frames is {WHOLE} 32, not 31'):
        stage_config('apm', **{'data.frames': '31'})


def test_clips_need_no_scenes():
    assert stage_config('cam', **{'data.source': 'clips/', 'batch_size': '7'}).batch_size == 7


@pytest.mark.parametrize('value', ['many', None, (1,), True, 2.5, math.nan, math.inf])
def test_a_value_of_another_type_in_a_config_of_ones_own_is_told(value):
    values = stage_config('cam').to_dict() | {'steps': value}
    with pytest.raises(ValueError, match=f'config key steps is {WHOLE} 1, not '):
        check(ConfigDict(values))


def test_every_rule_is_about_a_key_of_some_stage():
    known = set()
    for stage in STAGES + ABLATIONS:
        known |= {path for path in RULES if _has(stage_config(stage), path)}
    assert known == RULES.keys()


def _has(config, path):
    for name in path.split('.'):
        if not hasattr(config, 'keys') or name not in config:
            return False
        config = config[name]
    return not hasattr(config, 'keys')
