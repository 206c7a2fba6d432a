"""Tracks the storages of a running model: the weights in them, and whether they depend on the input."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from mpq.models.memory.regions import Origin, region


class Memory:
    """The model's own storages, identified by pointer, and temporary ones, by identity.

    A weak reference to each tracked temporary storage prevents its identity from being reused.

    Args:
        state: every parameter and buffer.
    """

    def __init__(self, state: Iterable[Tensor]) -> None:
        self._fixed = {pointer(tensor) for tensor in state} - {0}
        self._state: dict[int, StorageWeakRef] = {}
        self._copies: dict[int, StorageWeakRef] = {}
        self._origins: dict[int, list[Origin]] = {}

    def add(self, tensor: Tensor, origin: Origin) -> None:
        """Record that the storage of `tensor` contains `origin`."""
        key = self._key(tensor)
        if pointer(tensor) not in self._fixed:
            storage = tensor.untyped_storage()
            self._copies.setdefault(key, StorageWeakRef(storage))  # type: ignore[no-untyped-call]
        origins = self._origins.setdefault(key, [])
        if not any(known.weight == origin.weight and known.region == origin.region for known in origins):
            origins.append(origin)

    def origins(self, tensor: Tensor) -> list[Origin]:
        """The origins that `tensor` shares elements with."""
        found = self._origins.get(self._key(tensor)) if _has_memory(tensor) else None
        if not found or not tensor.numel():
            return []
        view = region(tensor)
        return [origin for origin in found if origin.region.meeting(view) is not None]

    def is_state(self, tensor: Tensor) -> bool:
        """Whether the values of `tensor` come only from the model's own state."""
        return _has_memory(tensor) and (pointer(tensor) in self._fixed or tensor.untyped_storage()._cdata in self._state)

    def write(self, results: Iterable[Tensor], *, on_data: bool) -> None:
        """Record that an op wrote `results`, from data (and perhaps state) or from state alone."""
        for tensor in filter(_has_memory, results):
            storage = tensor.untyped_storage()
            if not on_data:
                self._state.setdefault(storage._cdata, StorageWeakRef(storage))  # type: ignore[no-untyped-call]
            elif pointer(tensor) not in self._fixed:
                for known in (self._origins, self._copies, self._state):
                    known.pop(self._key(tensor), None)

    def shared(self, results: Iterable[Tensor], tensors: Iterable[Tensor]) -> bool:
        """For each of `results`, whether it is in the storage of one of `tensors`."""
        pointers = {pointer(tensor) for tensor in tensors} - {0}
        return all(pointer(result) in pointers for result in results)

    def _key(self, tensor: Tensor) -> int:
        at = pointer(tensor)
        return at if at in self._fixed else int(tensor.untyped_storage()._cdata)


def pointer(tensor: Tensor) -> int:
    """Address of the storage of `tensor`; 0 if it has none."""
    return tensor.untyped_storage().data_ptr() if _has_memory(tensor) else 0


def _has_memory(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta
