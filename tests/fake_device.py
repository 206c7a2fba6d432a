"""A device that is not there: tensors that count as being on "cuda:0" while their values are in ordinary memory.

Every op that mixes tensors of the device with others fails as it does on a real one, and so does `.numpy()` of a tensor on the device. So
a test without an accelerator finds code that takes for granted that everything is on the CPU. What a real device does differently in its
arithmetic is not seen.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("cuda:0")
CPU = torch.device("cpu")
_PLAIN = ("arange", "empty", "eye", "full", "linspace", "ones", "rand", "randint", "randn", "tensor", "zeros")
_FACTORIES = (*_PLAIN, *(f"{name}_like" for name in ("empty", "full", "ones", "zeros")))
_NUMPY = "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
_CROSS = {"copy_", "_to_copy", "set_", "index_copy_"}  # that read from another device
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}  # whose indices may be on the CPU


class MixedDevicesError(RuntimeError):
    """Tensors of two devices met."""


class _Marks:
    """Which storages count as being on the device, and what was done against that."""

    def __init__(self, found: list[str] | None) -> None:
        self._storages: set[int] = set()
        self._found = found

    def refuse(self, error: Exception) -> None:
        """Raise an error, or note it with its place."""
        if self._found is None:
            raise error
        frames = [frame for frame in traceback.extract_stack() if f"{os.sep}mpq{os.sep}" in frame.filename]
        places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[:-4:-1])
        self._found.append(f"{places}: {error}")

    def has(self, tensor: Tensor) -> bool:
        """Whether a tensor is on the device."""
        return tensor.layout == torch.strided and tensor.untyped_storage()._cdata in self._storages

    def put(self, tensor: Tensor, *, on: bool) -> Tensor:
        """Say where a tensor is."""
        if tensor.layout == torch.strided:
            (self._storages.add if on else self._storages.discard)(tensor.untyped_storage()._cdata)
        return tensor


class _Dispatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every op, those of backward passes too."""

    def __init__(self, marks: _Marks) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._marks = marks

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        name = func.overloadpacket.__name__
        there = [self._marks.has(tensor) for tensor in tensors]
        if name in _INDEXED:
            self._check_index(func, args)
        elif name not in _CROSS and any(there) and not all(on or not tensor.ndim for tensor, on in zip(tensors, there, strict=True)):
            shapes = ", ".join(f"{list(t.shape)} {'device' if on else 'cpu'}" for t, on in zip(tensors, there, strict=True))
            self._marks.refuse(MixedDevicesError(f"{func} of tensors on two devices: {shapes}"))
        on = self._marks.has(args[0]) if name in _CROSS | _INDEXED and isinstance(args[0], Tensor) else any(there)
        before = {tensor.untyped_storage()._cdata for tensor in tensors if tensor.layout == torch.strided}
        given = dict(kwargs or {})
        if given.get("device") == DEVICE:  # a graph makes a tensor there
            given["device"], on = CPU, True
        result = func(*args, **given)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.layout == torch.strided and leaf.untyped_storage()._cdata not in before:
                self._marks.put(leaf, on=on)
        return result

    def _check_index(self, func: Any, args: Any) -> None:
        own = self._marks.has(args[0])
        indices = [leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, Tensor)]
        values = [leaf for leaf in args[2:3] if isinstance(leaf, Tensor) and leaf.ndim]
        if (not own and any(map(self._marks.has, indices))) or any(self._marks.has(value) != own for value in values):
            self._marks.refuse(MixedDevicesError(f"{func} of tensors on two devices"))


class _Patches:
    """Replaces what asks for the device, moves tensors, or makes them on it; it works inside modes and hooks, too."""

    def __init__(self, marks: _Marks) -> None:
        self._marks = marks

    def put(self, patch: pytest.MonkeyPatch) -> None:
        """Replace all of it."""
        own, marks = {name: getattr(Tensor, name) for name in ("device", "is_cuda", "numpy", "to", "cpu")}, self._marks
        patch.setattr(Tensor, "device", property(lambda tensor: DEVICE if marks.has(tensor) else own["device"].__get__(tensor)))
        patch.setattr(Tensor, "is_cuda", property(lambda tensor: marks.has(tensor) or own["is_cuda"].__get__(tensor)))
        patch.setattr(Tensor, "numpy", lambda tensor, **options: self._numpy(own["numpy"], tensor, **options))
        patch.setattr(Tensor, "to", lambda tensor, *args, **kwargs: self._to(own["to"], tensor, *args, **kwargs))
        patch.setattr(Tensor, "cpu", lambda tensor, **_: self._moved(tensor, on=False))
        states = torch.get_rng_state
        patch.setattr(torch, "get_rng_state", lambda: marks.put(states(), on=False))  # no op makes it
        for name in _FACTORIES:
            patch.setattr(torch, name, self._made(getattr(torch, name)))

    def _numpy(self, numpy: Any, tensor: Tensor, **options: Any) -> Any:
        if self._marks.has(tensor):
            self._marks.refuse(TypeError(_NUMPY))
        return numpy(tensor, **options)

    def _to(self, to: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        wanted = next((leaf for leaf in (*args, kwargs.get("device")) if isinstance(leaf, (str, torch.device))), None)
        other = next((leaf for leaf in args if isinstance(leaf, Tensor)), None)
        on = self._marks.has(tensor) if wanted is None else torch.device(wanted).type == "cuda"
        on = self._marks.has(other) if other is not None else on
        dtype = next((leaf for leaf in (*args, kwargs.get("dtype")) if isinstance(leaf, torch.dtype)), tensor.dtype)
        made = to(tensor, other.dtype if other is not None else dtype, copy=bool(kwargs.get("copy")))
        return made if on == self._marks.has(made) else self._moved(made, on=on)

    def _moved(self, tensor: Tensor, *, on: bool) -> Tensor:
        return tensor if self._marks.has(tensor) == on else _Move.apply(tensor, self._marks, on)  # type: ignore[no-untyped-call]

    def _made(self, factory: Any) -> Any:
        def make(*args: Any, **kwargs: Any) -> Any:
            if not _is_fake(kwargs.get("device")):
                return factory(*args, **kwargs)
            return self._marks.put(factory(*args, **kwargs | {"device": CPU}), on=True)

        return make


class _Move(torch.autograd.Function):
    """A copy on the other device; its gradient comes back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, marks: _Marks, on: bool) -> Tensor:
        ctx.marks, ctx.on = marks, on
        return marks.put(tensor.detach().clone(), on=on)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.marks.put(gradient.clone(), on=not ctx.on), None, None


def _is_fake(value: Any) -> bool:
    return (isinstance(value, torch.device) and value.type == "cuda") or (isinstance(value, str) and value.startswith("cuda"))


@contextmanager
def fake_device(found: list[str] | None = None) -> Iterator[torch.device]:
    """Inside the `with`, tensors can be moved to a device "cuda:0". With a list, what would fail is noted there and done all the same."""
    marks = _Marks(found)
    with pytest.MonkeyPatch.context() as patch, _Dispatch(marks):
        _Patches(marks).put(patch)
        yield DEVICE
