"""Finds the dicts of tensors in a checkpoint, under any keys."""

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
        key: the keys that lead to it, joined by dots; empty for the top level of the file.
        state: its tensors and other values by name; dicts inside it are separate entries.
    """

    key: str
    state: Mapping[str, Any]


def find_entries(content: object) -> list[Entry]:
    """Every dict with string keys and at least one tensor in the result of torch.load, at most three keys deep."""
    return list(_entries(content, "", _DEPTH))


def _entries(content: object, key: str, depth: int) -> Iterator[Entry]:
    if isinstance(content, nn.Module):  # only a trusted file can have one
        content = content.state_dict()
    if not isinstance(content, Mapping) or not depth or not all(isinstance(name, str) for name in content):
        return
    if any(isinstance(value, Tensor) for value in content.values()):
        yield Entry(key, _without_dicts(content))
    for name, value in content.items():
        yield from _entries(value, f"{key}.{name}" if key else name, depth - 1)


def _without_dicts(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """`content` itself, which may include torch's module versions, without dicts that are not a module's state."""
    inner = {name for name, value in content.items() if isinstance(value, Mapping | nn.Module) and not name.endswith("_extra_state")}
    return {name: value for name, value in content.items() if name not in inner} if inner else content
