"""Published files written into a folder in our format, one array at a time."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from st2v_jax.convert.assembly import Assembly, assemble
from st2v_jax.convert.sources import find
from st2v_jax.storage import atomic
from st2v_jax.storage.safetensors import SafeTensors, write
from st2v_jax.storage.untrusted import UnsafeCheckpointError
from st2v_jax.weights import folder as ours


@dataclass(frozen=True, eq=False)
class Conversion:
    """What a conversion will write; all of it has been checked.

    Attributes:
      folder: where it will be written.
      dtype: of the arrays there.
      assembly: the model that the files and the folder make together.
      arrays: {network: {path: array}} of the networks that are not in the folder yet.
      done: the networks that an earlier run wrote from the same files.
      left_out: the files that hold no known network.
      initial: whether the UNet in the folder is a Video-LDM that becomes `initial`, as a streaming model is added.
    """

    folder: Path
    dtype: np.dtype
    assembly: Assembly
    arrays: dict[str, Mapping[str, np.ndarray]]
    done: tuple[str, ...]
    left_out: tuple[Path, ...]
    initial: bool

    def sizes(self) -> dict[str, int]:
        """{network: number of parameters} of what will be written."""
        return {name: sum(array.size for array in arrays.values()) for name, arrays in self.arrays.items()}


def plan(sources: Sequence[str | Path], folder: str | Path, dtype: np.typing.DTypeLike = np.float16) -> Conversion:
    """Finds the files in the sources (see `sources.find`) and checks that they and the folder make a model together.

    Raises ValueError or OSError for what cannot be read, does not fit, or does not belong together.
    """
    folder, held = Path(folder), ours.held(folder)
    found = [find(source) for source in sources]
    before = ours.read(folder) if (folder / 'config.json').is_file() else None
    assembly = assemble(found, before, held)
    files = assembly.files
    initial = 'cam' in files and 'unet' in held and not {'cam', 'initial'} & held and 'initial' not in files
    if initial:
        assembly = dataclasses.replace(assembly, config=dataclasses.replace(assembly.config, initial=True))
    notes = {name: _notes_in(folder, name) for name in files if name in held}
    for name, noted in notes.items():
        if before is None and noted is not None and 'from' not in noted:
            raise ValueError(f'{folder / name}.safetensors was not written by a conversion: choose another folder')
    done = tuple(name for name in notes if notes[name] == _notes(files[name][0], dtype))
    # The UNet comes last: then a run that is continued finds CAM in the folder, and takes it for the streaming model's.
    names = sorted((name for name in files if name not in done), key=lambda name: name == 'unet')
    left_out = tuple(file for place in found for file in place.left_out)
    return Conversion(folder, np.dtype(dtype), assembly, assembly.arrays(names), done, left_out, initial)


def carry_out(conversion: Conversion, on_array: Callable[[str, int], None] = lambda network, size: None) -> None:
    """Writes the folder; each file appears when it is complete, and config.json last.

    on_array: called with the network and the number of parameters of every array that is written.
    """
    folder = conversion.folder
    folder.mkdir(parents=True, exist_ok=True)
    atomic.clear(folder)
    if conversion.initial:
        (folder / 'unet.safetensors').rename(folder / 'initial.safetensors')
    for name, arrays in conversion.arrays.items():
        file, checkpoint = conversion.assembly.files[name]

        def written(size, name=name, tensors=checkpoint.tensors):
            tensors.forget()
            on_array(name, size)

        try:
            notes = _notes(file, conversion.dtype)
            write(folder / f'{name}.safetensors', arrays, conversion.dtype, notes=notes, on_array=written)
        except ValueError as error:
            raise ValueError(f'{name}/{error}; --dtype float32 or bfloat16 can hold it') from error
    ours.save(folder, conversion.assembly.config, {}, tokenizer=conversion.assembly.tokenizer)


def _notes(file, dtype):
    """Notes by which a file that was converted already is recognised."""
    about = file.stat()
    return {'from': file.name, 'size': str(about.st_size), 'time': str(about.st_mtime_ns), 'as': np.dtype(dtype).name}


def _notes_in(folder, network):
    """The notes in a file that is there, None if it is damaged."""
    try:
        return SafeTensors(folder / f'{network}.safetensors').metadata
    except UnsafeCheckpointError:
        return None  # then it is written again
