"""Weights outside the state dict: plain attributes, non-persistent buffers, constants of TorchScript.

They belong to the code of a model rather than to its state, so they can be neither searched nor stored in an artifact. But they take bytes,
so an analysis reports them. (Those of a torch.export archive become buffers when it is loaded.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.models.layers.dispatch_watch import Use, Watch
from mpq.models.memory.storage_tracker import pointer
from mpq.models.running.forward import forward

_NAMED = 3


def outside_weights(module: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The tensors outside the state dict that are used as weights on `batch`, by name; tensors that the call changes are state, not
    weights.

    Args:
        module: the model.
        batch: run once, if there is any such tensor.
    """
    found = outside_tensors(module)
    if not found:
        return {}
    watch = Watch(module, list(found.values()))
    versions = {name: tensor._version for name, tensor in found.items() if not tensor.is_inference()}
    with watch.active():
        forward(module, batch)
    now = outside_tensors(module)
    return {
        name: tensor
        for number, (name, tensor) in enumerate(found.items())
        if _is_weight(watch.uses.get(number, {})) and _is_same(tensor, now.get(name), versions.get(name))
    }


def outside_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every floating-point matrix of `module` that is not in its state dict, by name, each storage once."""
    seen = {pointer(tensor) for tensor in module.state_dict().values() if isinstance(tensor, Tensor)} - {0}
    found: dict[str, Tensor] = {}
    for name, value in (*_attributes(module), *_constants(module)):
        if isinstance(value, Tensor) and _is_matrix(value) and pointer(value) not in seen:
            seen.add(pointer(value))
            found[name] = value.detach()
    return found


def outside_notes(found: Mapping[str, Tensor], stored_bytes: int) -> list[str]:
    """At most one line for people: these tensors and their share of the bytes; `stored_bytes` are those of the state dict."""
    if not found:
        return []
    taken = bytes_of(found)
    shown = ", ".join(list(found)[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")
    return [
        f"used as weights but not in the state dict, so neither searched nor stored in artifacts: {shown} ({taken:,} bytes, "
        f"{taken / (taken + stored_bytes):.1%} of all); make them parameters or buffers, and save TorchScript without torch.jit.freeze"
    ]


def bytes_of(found: Mapping[str, Tensor]) -> int:
    """Total bytes of all tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in found.values())


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Attributes of all submodules that may be tensors, including those of TorchScript."""
    for prefix, child in module.named_modules():
        values = {**vars(child), **dict(child.named_buffers(recurse=False)), **_scripted(child)}
        yield from ((f"{prefix}.{name}" if prefix else name, value) for name, value in values.items())


def _scripted(module: nn.Module) -> dict[str, Any]:
    """The attributes that the forward pass of a TorchScript module reads."""
    graph = _graph(module, "graph")
    nodes = [] if graph is None else graph.findAllNodes("prim::GetAttr")
    own = [node.s("name") for node in nodes if node.output().type().kind() == "TensorType" and node.inputsAt(0).debugName() == "self"]
    return {name: getattr(module, name) for name in own if hasattr(module, name)}


def _constants(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The tensors in the program of a TorchScript module, as after torch.jit.freeze or in a trace."""
    graph = _graph(module, "inlined_graph")
    for node in [] if graph is None else graph.findAllNodes("prim::Constant"):
        if node.output().type().kind() == "TensorType" and node.hasAttribute("value"):
            name = node.output().debugName()
            yield f"constant {name}" if name.isdecimal() else name.removeprefix("self."), node.t("value")


def _graph(module: nn.Module, name: str) -> Any:
    """A graph of a TorchScript module; None for other modules, and without a forward pass."""
    if not isinstance(module, torch.jit.ScriptModule):
        return None
    try:
        return getattr(module, name, None)
    except RuntimeError:  # a list of modules in a trace
        return None


def _is_matrix(tensor: Tensor) -> bool:
    return (
        tensor.is_floating_point()
        and tensor.layout == torch.strided
        and sum(size > 1 for size in tensor.shape) > 1
        and pointer(tensor) != 0
    )


def _is_weight(uses: Mapping[Any, Use]) -> bool:
    return any(use.operator in ("linear", "matmul", "conv", "recurrent", "embedding") for use in uses.values())


def _is_same(before: Tensor, now: Tensor | None, version: int | None) -> bool:
    unchanged = version is None or before._version == version
    return now is not None and pointer(now) == pointer(before) and unchanged
