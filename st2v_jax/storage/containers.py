"""Published files in any container, each as a mapping name -> array."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from st2v_jax.storage.buckets import located
from st2v_jax.storage.first_bytes import HEAD, is_safetensors, is_torch, stand_in
from st2v_jax.storage.pickle_reader import PickledTensors
from st2v_jax.storage.safetensors import SafeTensors
from st2v_jax.storage.untrusted import UnsafeCheckpointError, read_json, show


def read(file: str | Path) -> Mapping[str, np.ndarray]:
    """The tensors of a file, each read when it is asked for.

    Args:
      file: safetensors or a file of torch.save (.ckpt, .pth, .bin), told by its first bytes whatever its name; or
        `*.json`, an index beside the files that the tensors are spread over.

    Raises:
      UnsafeCheckpointError: (a ValueError) for a file that is cut short or altered, or holds anything but tensors; for
        the known kinds of other files it says what they are and what helps.
      FileNotFoundError: for a missing file, also for one that an index names.
    """
    if str(file).endswith('.json'):
        return Sharded(file)
    with located(file).open('rb') as stream:
        head = stream.read(HEAD)
    if what := stand_in(head):
        raise UnsafeCheckpointError(f'{file} {what}')
    by_name = str(file).endswith('.safetensors') and not is_torch(head)
    return SafeTensors(file) if is_safetensors(head) or by_name else PickledTensors(file)


class Sharded(Mapping[str, np.ndarray]):
    """name -> array over several files; `index` says which file has which tensor, which is checked."""

    def __init__(self, index: str | Path):
        try:
            self._places = _weight_map(index)
            self._shards = {name: read(Path(index).with_name(name)) for name in dict.fromkeys(self._places.values())}
            listed = {(shard, tensor) for tensor, shard in self._places.items()}
            held = {(shard, tensor) for shard, tensors in self._shards.items() for tensor in tensors}
            if listed != held:
                odd = sorted(listed ^ held)
                shown = ', '.join(f'{show(tensor)} in {show(shard)}' for shard, tensor in odd[:5])
                raise UnsafeCheckpointError(f'{len(odd)} tensors are not in the files that the index names: {shown}')
        except UnsafeCheckpointError as error:
            raise UnsafeCheckpointError(f'{index}: {error}') from None

    def __getitem__(self, name: str) -> np.ndarray:
        return self._shards[self._places[name]][name]

    def forget(self) -> None:
        """See `PickledTensors.forget`."""
        for shard in self._shards.values():
            shard.forget()

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _weight_map(index):
    """{tensor: name of the file that has it}."""
    places = read_json(Path(index).read_bytes()).get('weight_map')
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise UnsafeCheckpointError(f"'weight_map' maps tensors to files, got {show(places)}")
    for name in places.values():
        if name in ('', '..') or Path(name).name != name or {'\\', '\0'} & {*name} or name.endswith('.json'):
            raise UnsafeCheckpointError(f'an index names files beside it, got {show(name)}')
    return places
