"""The ranges of a config's values, which hold before anything is loaded. Values are of the right type already."""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from st2v_jax.models.build import ModelConfig
from st2v_jax.models.unet3d import POLICIES


class Rule(NamedTuple):
    """A rule in words, and the function that says whether a value keeps it."""

    words: str
    holds: Callable[[Any], bool]


def _at_least(least):
    return Rule(f'a whole number of at least {least}', lambda value: value == int(value) and value >= least)


def _one_of(*names):
    return Rule(f'one of {", ".join(names)}', lambda value: value in names)


def _is_pattern(value):
    try:
        return bool(re.compile(value))
    except re.error:
        return False


NOT_NEGATIVE = Rule('a number of at least 0', lambda value: 0 <= value < math.inf)
POSITIVE = Rule('a number above 0', lambda value: 0 < value < math.inf)
SHARE = Rule('a number from 0 to 1', lambda value: 0 <= value <= 1)
BELOW_1 = Rule('a number of at least 0 and below 1', lambda value: 0 <= value < 1)
SEED = Rule(f'a whole number between 0 and {2**32 - 1}', lambda value: value == int(value) and 0 <= value < 2**32)
AXIS = Rule('-1 or a whole number of at least 1', lambda value: value == int(value) and (value == -1 or value >= 1))
PATTERN = Rule('a regular expression', _is_pattern)
STARTS = Rule(
    'two whole numbers from 1 to 999, the lower first',
    lambda value: len(value) == 2 and 1 <= value[0] <= value[1] <= 999 and all(n == int(n) for n in value),
)

RULES = {
    'seed': SEED,
    'dtype': _one_of('float32', 'bfloat16', 'float16'),
    'mesh.data': AXIS,
    'mesh.fsdp': AXIS,
    'mesh.tensor': AXIS,
    'distributed.process': _at_least(0),
    'steps': _at_least(1),
    'max_seconds': NOT_NEGATIVE,
    'batch_size': _at_least(1),
    'accumulation': _at_least(1),
    'schedule.peak': POSITIVE,
    'schedule.warmup': BELOW_1,
    'schedule.decay': _one_of('constant', 'linear', 'cosine'),
    'optimizer.clip': POSITIVE,
    'optimizer.b1': BELOW_1,
    'optimizer.b2': BELOW_1,
    'optimizer.weight_decay': NOT_NEGATIVE,
    'ema_decay': BELOW_1,
    'log_every': _at_least(1),
    'checkpoint_every': _at_least(0),
    'previews.every': _at_least(0),
    'previews.frames': _at_least(1),
    'previews.steps': _at_least(1),
    'edge_weight': NOT_NEGATIVE,
    'kl_weight': NOT_NEGATIVE,
    'trained': PATTERN,
    'frozen': PATTERN,
    'conditioning_noise': NOT_NEGATIVE,
    'plain': Rule('0 or a whole number of at least 2', lambda value: value == 0 or value == int(value) >= 2),
    'source_noise': NOT_NEGATIVE,
    'starts': STARTS,
    'dropout': SHARE,
    'dropout.text': SHARE,
    'dropout.anchor': SHARE,
    'dropout.both': SHARE,
    'remat': _one_of('none', *POLICIES),
    'data.seed': SEED,
    'data.scenes': _at_least(1),
    'data.frames': _at_least(1),
    'data.captions': _at_least(1),
    'data.columns': _at_least(1),
    'data.workers': _at_least(0),
}


def check(config: ConfigDict) -> None:
    """Raises ValueError with key, rule and value for the first value that is out of its range or does not divide."""
    for key, value in _leaves(config):
        rule = RULES.get(key)
        if rule is not None and not _holds(rule, value):
            raise ValueError(f'config key {key} is {rule.words}, not {value!r}')
    try:
        model = ModelConfig.from_dict(config.model.to_dict())
    except (ValueError, TypeError, ArithmeticError) as error:
        raise ValueError(f'config.model is no model: {error}') from error
    _check_together(config, model)


def _check_together(config, model):
    dropout, data = config.get('dropout'), config.data
    if hasattr(dropout, 'keys') and sum(dropout.values()) > 1:
        raise ValueError(f'the shares of config.dropout are at most 1 together, not {sum(dropout.values()):g}')
    if config.batch_size % config.accumulation:
        raise ValueError(
            f'config key batch_size is a multiple of accumulation={config.accumulation}, not {config.batch_size}'
        )
    if data.get('source', 'world') != 'world':
        return
    if data.scenes % config.batch_size:
        raise ValueError(f'config key data.scenes is a multiple of batch_size={config.batch_size}, not {data.scenes}')
    rows = data.scenes // config.batch_size
    if rows % data.get('columns', 1):
        raise ValueError(f'config key data.columns divides data.scenes / batch_size = {rows}, unlike {data.columns}')
    needed = model.frames * (2 if config.get('anchor') else 1)
    if config.objective == 'denoising' and data.frames < needed:
        raise ValueError(f'config key data.frames is a whole number of at least {needed}, not {data.frames}')


def _holds(rule, value):
    try:
        return not isinstance(value, bool) and bool(rule.holds(value))
    except (TypeError, ValueError, OverflowError):  # of another type, not a number, infinite
        return False


def _leaves(config, path='') -> Iterator[tuple[str, Any]]:
    """(key, value) of all values that are no sections; those of the model have rules of their own."""
    for name, value in config.items():
        if hasattr(value, 'keys'):
            yield from () if f'{path}{name}' == 'model' else _leaves(value, f'{path}{name}.')
        else:
            yield f'{path}{name}', value
