"""Loads configs from files and applies the changes of the command line.

The stages are the files of configs/. That folder is installed as the package `st2v_jax.configs`; in a clone it is next
to st2v_jax. Your own configs may be in any folder: `from st2v_jax.configs import common` works there too.
"""

import ast
import importlib.util
import sys
import types
from pathlib import Path

from ml_collections import ConfigDict

import st2v_jax
from st2v_jax.training import ranges

PACKAGE = 'st2v_jax.configs'


def load_config(name: str, overrides: dict[str, str] | None = None) -> tuple[ConfigDict, str]:
    """Loads a config.

    Args:
      name: a stage such as 'cam:small', or the path of a file with get_config(size); the size follows the colon.
      overrides: values as text by key, such as {'schedule.peak': '1e-4'}.

    Returns:
      The config, and a name such as 'cam-small'.

    Raises ValueError for a missing file, an unknown size, an unknown key, a value of another type or out of its range.
    """
    path, _, size = str(name).partition(':')
    path = _file(path)
    config = _module(path).get_config(size)
    for key, text in (overrides or {}).items():
        _override(config, key, text)
    ranges.check(config)
    return config.lock(), '-'.join(filter(None, (path.stem, size)))


def _file(name):
    """The file for a path or for the name of a stage."""
    path, folder = Path(name), _folder()
    if path.parent.name or path.suffix:
        if not path.is_file():
            raise ValueError(f'there is no config file {path}')
        if path.suffix != '.py':
            raise ValueError(f'a config is a Python file, not {path}')
        return path
    stages = sorted(file.stem for file in folder.glob('*.py') if file.stem not in ('__init__', 'common'))
    if name not in stages:
        raise ValueError(f'there is no config {name}: give a file, or one of {", ".join(stages)}')
    return folder / f'{name}.py'


def _folder():
    """The folder of our configs: inside the installed package, or next to it in a clone."""
    package = Path(st2v_jax.__file__).resolve().parent
    inside, beside = package / 'configs', package.parent / 'configs'
    return inside if inside.is_dir() else beside


def _module(path):
    """Imports a config file as a module of a package for its folder, so that files there can import each other."""
    ours = _package(PACKAGE, _folder())
    folder = path.resolve().parent
    package = ours if folder == _folder() else _package(f'configs of {folder}'.replace('.', '_'), folder)
    spec = importlib.util.spec_from_file_location(f'{package}.{path.stem.replace(".", "_")}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _package(name, folder):
    """Registers a package whose modules are the files of the folder; returns its name."""
    if name not in sys.modules:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(folder)]
    return name


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
    """Converts the text to the type of the value in the config."""
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
