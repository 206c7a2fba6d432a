"""The state that a model keeps between calls: buffers and attributes, by name, with their values.

It covers buffers, tensors, numbers and strings in attributes (also inside tuples, lists and dicts), and the attributes of TorchScript
modules, whose names are found in a dump.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mpq.data.sparse import same_tensors

State = dict[tuple[str, str], Any]
"""Values by the name of a module and that of its buffer or attribute."""
_PLAIN = (Tensor, bool, int, float, complex, str, bytes, torch.dtype, torch.device, type(None))
_OWN = frozenset(nn.Module().__dict__)
_ATTRIBUTE = re.compile(r"^    (\w+) = ", re.MULTILINE)


def kept_state(module: nn.Module) -> State:
    """A copy of everything that `module` could keep between calls."""
    return {key: copied(value) for key, value in _values(module)}


def changed_state(module: nn.Module, before: Mapping[tuple[str, str], Any]) -> State:
    """The entries of `before` whose values in `module` have changed, with their old values."""
    now = dict(_values(module))
    return {key: value for key, value in before.items() if key not in now or not _same(now[key], value)}


def restore_state(module: nn.Module, state: Mapping[tuple[str, str], Any]) -> None:
    """Restore copies of the values of `state` in `module`."""
    owners = dict(module.named_modules())
    for (path, name), value in state.items():
        owner = owners[path]
        buffers = dict(owner.named_buffers(recurse=False))
        if name in buffers and isinstance(value, Tensor):
            present = buffers[name]
            if present.shape == value.shape and present.dtype == value.dtype:
                present.detach().copy_(value)
            else:
                setattr(owner, name, copied(value))
        elif isinstance(owner, torch.jit.ScriptModule):
            owner._c.setattr(name, copied(value))
        else:
            owner.__dict__[name] = copied(value)


def state_names(state: Mapping[tuple[str, str], Any]) -> list[str]:
    """The names of the entries, like in a state dict."""
    return [f"{path}.{name}" if path else name for path, name in state]


def copied(value: Any) -> Any:
    """`value` with its tensors and containers copied."""
    return pytree.tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, value)


def _values(module: nn.Module) -> Iterator[tuple[tuple[str, str], Any]]:
    for path, owner in module.named_modules():
        scripted = isinstance(owner, torch.jit.ScriptModule)
        for name, buffer in owner.named_buffers(recurse=False):
            yield (path, name), buffer
        for name, value in _scripted(owner) if scripted else owner.__dict__.items():
            if (scripted or name not in _OWN) and _is_plain(value):
                yield (path, name), value


def _scripted(owner: Any) -> Iterator[tuple[str, Any]]:
    """Attributes of a TorchScript module that are neither parameters, buffers nor submodules."""
    text = owner._c.dump_to_str(False, True, False)
    start = text.find("attributes {")
    tensors = (*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False))
    known = {"training", *(name for name, _ in (*tensors, *owner.named_children()))}
    for name in dict.fromkeys(_ATTRIBUTE.findall(text[start : text.find("\n  }", start)])):
        if name not in known and owner._c.hasattr(name):
            yield name, owner._c.getattr(name)


def _is_plain(value: Any) -> bool:
    leaves = pytree.tree_leaves(value)
    return all(isinstance(leaf, _PLAIN) and not isinstance(leaf, nn.Parameter) for leaf in leaves)


def _same(now: Any, before: Any) -> bool:
    left, right = pytree.tree_flatten(now), pytree.tree_flatten(before)
    if left[1] != right[1]:
        return False
    return all(
        same_tensors(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else type(a) is type(b) and a == b
        for a, b in zip(left[0], right[0], strict=True)
    )
