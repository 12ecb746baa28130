"""`python train.py --config configs/<stage>.py[:size]`: parse, train, report."""

import argparse
import ast
import importlib.util
import re
import shlex
import sys
from pathlib import Path

EPILOG = """\
The stages, each from the weights of the one before:
  python train.py --config configs/autoencoder.py:small --workdir runs/autoencoder
  python train.py --config configs/clip.py:small --workdir runs/clip --from runs/autoencoder/weights
  python train.py --config configs/video_ldm.py:small --workdir runs/video_ldm --from runs/clip/weights
  python train.py --config configs/cam.py:small --workdir runs/cam --from runs/video_ldm/weights
  python train.py --config configs/apm.py:small --workdir runs/apm --from runs/cam/weights
  python train.py --config configs/refiner_vae.py:small --workdir runs/refiner_vae --from runs/apm/weights
  python train.py --config configs/refiner.py:small --workdir runs/refiner --from runs/refiner_vae/weights
Ablations of CAM and APM, from the weights of video_ldm: configs/no_apm.py, configs/add_cond.py, configs/conc_cond.py.
Sizes: none is the released model, :small the one that ships, :tiny runs on a CPU in seconds.
Any key of the config can be set: --config.steps=2000 --config.schedule.peak=3e-4
The same command again resumes from the newest checkpoint in the workdir.
"""


def main(argv=None) -> int:
    """Exit code: 0 trained or stopped by a signal, 1 a loss was not finite, 2 bad input or a full disk."""
    argv = sys.argv[1:] if argv is None else list(argv)
    arguments = _parse(argv)
    try:
        config, name = load_config(arguments.config, arguments.overrides)
        workdir = arguments.workdir or Path('runs', name)
        if workdir.exists() and not workdir.is_dir():
            raise ValueError(f'--workdir {workdir} is a file, not a folder')
        from st2v_jax.training import loop  # after the arguments, so that --help and mistakes answer at once

        command = 'python train.py ' + shlex.join(argv)
        outcome = loop.train(config, workdir, arguments.source, command=command)
    except (ValueError, KeyError, OSError) as error:
        return _fail(error, 2)
    except RuntimeError as error:
        if 'RESOURCE_EXHAUSTED' in str(error):
            return _fail('out of device memory: lower config.batch_size, config.data.scenes or config.data.columns', 1)
        if type(error).__name__ != 'TrainingError':
            raise
        return _fail(error, 1)
    if outcome == 'stopped':
        print(f'stopped and saved; resume with: {command}')
    else:
        print(f'trained weights: {workdir / "weights"}')
    return 0


def _parse(argv):
    parser = argparse.ArgumentParser(prog='train.py', description='Train one stage of StreamingT2V.', epilog=EPILOG,
                                     formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument('--config', required=True, metavar='FILE[:SIZE]', help='a file with get_config(size)')
    parser.add_argument('--workdir', type=Path, help='where checkpoints, logs and weights go (default: runs/<config>)')
    parser.add_argument('--from', dest='source', type=Path, metavar='WEIGHTS', help='weights of the stage before')
    arguments, rest = parser.parse_known_args(argv)
    arguments.overrides = {}
    rest = iter(rest)
    for word in rest:
        found = re.fullmatch(r'--config\.([\w.]+)(?:=(.*))?', word, re.DOTALL)
        if not found:
            parser.error(f'unknown option {word}')
        value = found[2] if found[2] is not None else next(rest, None)
        if value is None:
            parser.error(f'{word} needs a value')
        arguments.overrides[found[1]] = value
    return arguments


def load_config(name, overrides=None):
    """'configs/cam.py:small' and {'schedule.peak': '1e-4'} -> (ConfigDict, a name such as 'cam-small').

    Raises ValueError for a file that cannot be loaded, an unknown size, an unknown key or a value of another type.
    """
    path, _, size = str(name).partition(':')
    path = Path(path)
    if not path.is_file():
        raise ValueError(f'there is no config file {path}')
    spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
    if spec is None:
        raise ValueError(f'a config is a Python file, not {path}')
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent.parent))  # configs share configs/common.py
    try:
        spec.loader.exec_module(module)
        config = module.get_config(size)
    finally:
        sys.path.pop(0)
    for key, text in (overrides or {}).items():
        _override(config, key, text)
    return config.lock(), '-'.join(filter(None, (path.stem, size)))


def _override(config, key, text):
    *branches, leaf = key.split('.')
    place = config
    for branch in branches:
        place = place.get(branch, {})
        if not hasattr(place, 'keys'):
            raise ValueError(f'unknown config key {key}')
    if leaf not in place or hasattr(place[leaf], 'keys'):
        raise ValueError(f'unknown config key {key}' + (f'; there are {", ".join(sorted(place))}' if place else ''))
    place[leaf] = _value(key, text, place[leaf])


def _value(key, text, old):
    """The text as a value of the type that the config has."""
    if isinstance(old, str):
        return text
    if isinstance(old, bool) and text.lower() in ('true', 'false'):
        return text.lower() == 'true'
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(old, tuple) and isinstance(value, list):
        value = tuple(value)
    if old is not None and type(value) is not type(old):
        raise ValueError(f'config key {key} is of type {type(old).__name__}, not {text!r}')
    return value


def _fail(error, code):
    message = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    print(f'train.py: {message}', file=sys.stderr)
    return code
