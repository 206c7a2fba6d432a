"""Which dicts of tensors a checkpoint holds, under whatever keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

WHOLE = "."
"""What `--checkpoint-key` calls the file itself, where its own names and one of its entries fit."""
_DEPTH = 4


@dataclass(frozen=True)
class Entry:
    """One dict of tensors.

    Args:
        key: the keys that lead to it, joined by dots; empty for what the file holds itself.
        state: its tensors and other values by name; dicts inside it are entries of their own.
    """

    key: str
    state: Mapping[str, Any]


def find_entries(content: object) -> list[Entry]:
    """Every dict with text as keys and at least one tensor in what torch.load gave, at most three keys deep."""
    return list(_entries(content, "", _DEPTH))


def _entries(content: object, key: str, depth: int) -> Iterator[Entry]:
    if isinstance(content, nn.Module):  # only a trusted file holds one
        content = content.state_dict()
    if not isinstance(content, Mapping) or not depth or not all(isinstance(name, str) for name in content):
        return
    if any(isinstance(value, Tensor) for value in content.values()):
        yield Entry(key, _without_dicts(content))
    for name, value in content.items():
        yield from _entries(value, f"{key}.{name}" if key else name, depth - 1)


def _without_dicts(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """`content` itself, which may hold torch's versions of modules, unless it holds dicts that are no state of a module."""
    inner = {name for name, value in content.items() if isinstance(value, Mapping | nn.Module) and not name.endswith("_extra_state")}
    return {name: value for name, value in content.items() if name not in inner} if inner else content
