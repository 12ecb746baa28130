"""What a command does before its work: names the device, turns the compilation cache on, loads models."""

import os

from st2v_jax.errors import BadInput


def load(loader, *, quiet):
    """loader() -> models, after the line that names the device; raises BadInput where they cannot be loaded."""
    from st2v_jax.errors import WeightsError

    try:
        device = _device()
        if not quiet:
            print(f'device: {device}', flush=True)
        _keep_compiled_programs()
        return loader()
    except WeightsError as error:
        raise BadInput(error) from error


def _device():
    import jax

    try:
        devices = jax.local_devices()
    except RuntimeError as error:
        raise BadInput(f'no device to compute on: {str(error).splitlines()[0]}') from error
    kind = devices[0].device_kind
    if devices[0].platform == 'cpu':
        return f'CPU with {os.cpu_count()} cores, computing in float32'
    return f'{kind} ({devices[0].platform}), computing in bfloat16'


def _keep_compiled_programs():
    """jax's persistent compilation cache; a folder named by jax's own setting is left in charge."""
    import jax

    folder = os.environ.get('ST2V_CACHE')
    if folder is None:
        if jax.config.jax_compilation_cache_dir:
            return
        folder = os.path.join(os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'), 'st2v_jax')
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return  # a home that cannot be written costs time, not the video
    jax.config.update('jax_compilation_cache_dir', folder)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)
