"""Where a model computes: devices by name, moving a model and what it is given."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from mpq.errors import UsageError

CPU = torch.device("cpu")
AUTO = "auto"
_KINDS = ("cpu", "cuda", "mps")


def devices() -> list[str]:
    """The names of the devices that are there, the one that "auto" takes first."""
    found = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*found, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def device_named(text: str) -> torch.device:
    """The device called `text`: cpu, cuda, cuda:1, mps, or auto for the fastest that is there.

    Raises:
        UsageError: if it is not there; the message lists those that are.
    """
    there = devices()
    wanted = there[0] if text == AUTO else f"{text}:0" if text == "cuda" else text
    if wanted not in there:
        known = "is not there" if text.partition(":")[0] in _KINDS else "is not a device"
        raise UsageError(f"--device {text} {known}: this machine has {', '.join(reversed(there))}; choose one of them, or auto")
    return torch.device(wanted)


def device_of(module: nn.Module) -> torch.device:
    """Where the first parameter or buffer of a module is; the CPU if it has none."""
    return next((tensor.device for tensor in chain(module.parameters(), module.buffers())), CPU)


def moved(values: Any, device: torch.device) -> Any:
    """The same values, with the tensors in their containers on `device`."""
    return pytree.tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, values)


def move(module: nn.Module, device: torch.device) -> None:
    """Move a module in place, and the devices that the graphs of exported programs name."""
    module.to(device)
    for child in module.modules():
        if not isinstance(child, fx.GraphModule):
            continue
        for node in child.graph.nodes:
            if isinstance(node.kwargs.get("device"), torch.device):
                node.kwargs = {**node.kwargs, "device": device}
            node.args = tuple(device if isinstance(argument, torch.device) else argument for argument in node.args)
        for name, value in vars(child).items():
            if isinstance(value, Tensor):  # constants of the graph, which are neither parameters nor buffers
                setattr(child, name, value.to(device))
        child.recompile()
