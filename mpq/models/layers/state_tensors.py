"""The state of a model: its tensors by name, each storage once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from mpq.errors import ModelError
from mpq.models.memory.regions import region
from mpq.models.memory.storage_tracker import pointer


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """The state dict of `module`, not copied.

    Raises:
        ModelError: if it contains anything but tensors.
    """
    state = module.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ModelError(f"'{name}' in the state dict is not a tensor but {type(value).__name__}: mpq stores tensors only")
    return dict(state)


def tied_names(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, ...]]:
    """The names of `tensors`, grouped by equal memory, shape and dtype, in order of the first name, which is canonical."""
    groups: dict[object, list[str]] = {}
    for name, tensor in tensors.items():
        same = (region(tensor), tensor.dtype, tensor.device) if pointer(tensor) else name
        groups.setdefault(same, []).append(name)
    return (tuple(names) for names in groups.values())


def aliases_of(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Other names of tied tensors, each with its canonical name."""
    return {name: names[0] for names in tied_names(state) for name in names[1:]}
