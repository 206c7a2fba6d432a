"""Checks for every loaded model: real tensors, finite weights, nothing quantized; and the hash of a module in memory."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mpq.data.hashing import tensor_bytes
from mpq.errors import ModelError, NumericsError
from mpq.models.memory.offload import used

_QUANTIZED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")


def check_sound(module: nn.Module, source: str) -> None:
    """Refuse a module whose tensors cannot be measured; infinity is allowed in buffers, because attention masks use it.

    Raises:
        ModelError: if a tensor is on the meta device, was never initialized, is sparse or shares memory within itself, or a module is
            quantized already.
        NumericsError: if a parameter has NaN or infinity, or a buffer has NaN.
    """
    for name, child in module.named_modules():
        if type(child).__module__.startswith(_QUANTIZED):
            raise ModelError(f"{source}: '{name}' ({type(child).__name__}) is already quantized: give the original model")
    for name, parameter in module.named_parameters():
        _check_real(name, parameter, source)
        _check_dense(name, parameter, source)
        _check_own(name, parameter, source)
        used(parameter)
        if not _all_finite(parameter):
            raise NumericsError(f"{source}: weight '{name}' holds NaN or infinity: train or save the model again")
    stored = set(module.state_dict(keep_vars=True))
    for name, buffer in module.named_buffers():
        _check_real(name, buffer, source)
        if name in stored:
            _check_dense(name, buffer, source)
        if buffer.is_floating_point() and bool(buffer.isnan().any()):
            raise NumericsError(f"{source}: buffer '{name}' holds NaN: train or save the model again")


def state_sha256(module: nn.Module) -> str:
    """Hexadecimal SHA-256 over the sorted names, dtypes, shapes and bytes of the state dict."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
            digest.update(tensor_bytes(value))
    return digest.hexdigest()


def _check_real(name: str, tensor: Tensor, source: str) -> None:
    if is_lazy(tensor):
        raise ModelError(f"{source}: '{name}' has no values yet (a lazy module): call the model once on a batch first")
    if tensor.is_meta:
        raise ModelError(f"{source}: '{name}' is on the meta device and has no values: load the weights first")


def _check_dense(name: str, tensor: Tensor, source: str) -> None:
    if tensor.layout != torch.strided:
        layout = str(tensor.layout).removeprefix("torch.")
        raise ModelError(f"{source}: '{name}' has the layout {layout}, which artifacts do not store: make it dense with .to_dense()")


def _check_own(name: str, parameter: Tensor, source: str) -> None:
    if any(size > 1 and step == 0 for size, step in zip(parameter.shape, parameter.stride(), strict=True)):
        raise ModelError(f"{source}: '{name}' is expanded, so that values share their memory: give it its own, with .clone()")


def _all_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() and not tensor.is_complex():
        return True
    if tensor.element_size() == 1:  # torch has no isfinite for 8-bit floats
        tensor = tensor.float()
    return bool(tensor.isfinite().all())
