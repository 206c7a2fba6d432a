"""Finds which weights reach which ATen op, in one forward pass under a dispatch mode.

Views are recognized because they share the storage of the weight. Copies (clone, dtype casts, cat) and values with the shape of the weight
that are computed from the model's own state alone (parametrization, mask, weight normalization) are followed: an op that uses them uses the
weight. Any other op that reads a weight is a use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mpq.models.layers.operator_roles import COPIES, JOINS, OPERATORS, Role, role
from mpq.models.layers.stack_parts import parts_read
from mpq.models.memory.regions import Origin, Region, changing_axes, leading_axes, output_axes, region
from mpq.models.memory.storage_tracker import Memory


@dataclass
class Use:
    """One use of a weight.

    Args:
        operator: one of `OPERATORS`, or "norm".
        axes: output axes of the parameter.
        on_data: False if the op combines the weight only with the model's own state.
        consumers: names of the modules that use it, in order of first use.
        groups: number of equal parts of axis 0 of the parameter, each with its own outputs.
    """

    operator: str
    axes: tuple[int, ...]
    on_data: bool
    consumers: dict[str, None] = field(default_factory=dict)
    groups: int = 1

    @property
    def rank(self) -> tuple[bool, int]:
        """Lower is heavier."""
        return not self.on_data, OPERATORS.index(self.operator)


@dataclass(frozen=True)
class _Call:
    """One op that ran.

    Args:
        operation: name without namespace, overload and the underscore of in-place variants.
        arguments: by name in the schema.
        tensors: every tensor among them, with the name of its argument.
        results: the returned tensors.
        on_data: whether any input depends on the model's input.
    """

    operation: str
    arguments: Mapping[str, Any]
    tensors: list[tuple[str, Tensor]]
    results: list[Tensor]
    on_data: bool

    @property
    def read(self) -> list[tuple[str, Tensor]]:
        """The tensors whose values are read."""
        return self.tensors[1:] if self.operation == "copy" else self.tensors

    @property
    def copies(self) -> bool:
        """Whether the result is only a copy; writing a weight into other data is not."""
        return self.operation in COPIES and not (self.operation == "copy" and self.on_data)


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the uses of weights while active.

    Args:
        module: the model.
        weights: the parameters to watch, identified by position.

    Attributes:
        uses: the uses of each weight, both in order of first use.
        parts: the indices along dimension 0 that were read, of weights with three or more dimensions.
    """

    def __init__(self, module: nn.Module, weights: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.uses: dict[int, dict[tuple[Any, ...], Use]] = {}
        self.parts: dict[int, set[int]] = {}
        self._names = {id(child): name for name, child in module.named_modules()}
        self._stack: list[nn.Module] = []
        self._memory = Memory([*module.parameters(), *module.buffers()])
        for number, weight in enumerate(weights):
            self._memory.add(weight, Origin(number, region(weight)))

    @contextmanager
    def active(self) -> Iterator[Watch]:
        """Within the `with`, watch the ops and the modules in which they run."""
        enter = register_module_forward_pre_hook(lambda module, _: self._stack.append(module))
        leave = register_module_forward_hook(lambda *_: self._leave(), always_call=True)
        try:
            with self:
                yield self
        finally:
            enter.remove()
            leave.remove()
            self._stack.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self._see(func, named(func, args, kwargs or {}), _tensors(result))
        return result

    def _leave(self) -> None:
        if self._stack:
            self._stack.pop()

    def _see(self, func: Any, arguments: Mapping[str, Any], results: list[Tensor]) -> None:
        tensors = [(name, tensor) for name, value in arguments.items() for tensor in _tensors(value)]
        if results and not func._schema.is_mutable and self._memory.shared(results, [tensor for _, tensor in tensors]):
            return  # a view that is not declared as one, such as _unsafe_view
        on_data = any(tensor.dim() and not self._memory.is_state(tensor) for _, tensor in tensors)
        operation = func._schema.name.split("::")[-1].removesuffix("_")
        call = _Call(operation, arguments, tensors, results, on_data)
        found = [(name, tensor, origin) for name, tensor in call.read for origin in self._memory.origins(tensor)]
        self._memory.write(results, on_data=on_data)
        for name, tensor, origin in found:
            self._consume(call, name, tensor, origin)
        if operation in JOINS and not on_data:
            self._join(call)

    def _consume(self, call: _Call, name: str, tensor: Tensor, origin: Origin) -> None:
        """Follow `origin` through a call that reads it as `tensor`, and record what the call does with it."""
        part = role(call.operation, name, dims=tensor.dim(), arguments=call.arguments)
        if call.copies or (part.operator == "other" and not call.on_data):
            for result in call.results:
                if result.shape == tensor.shape:
                    self._memory.add(result, Origin(origin.weight, region(result), region(tensor), origin))
        if call.copies or part.operator == "none":
            return
        self._note(part, region(tensor), origin, call.on_data)
        looked_up = part.operator == "embedding"
        if len(origin.root.shape) > 2 and tensor.dim():
            read = parts_read(region(tensor), origin, call.arguments, looked_up=looked_up)
            self.parts.setdefault(origin.weight, set()).update(read)
        if looked_up and tensor.dim() > 2:
            self._look_up(call, tensor, origin)

    def _note(self, part: Role, view: Region, origin: Origin, on_data: bool) -> None:
        """Record that `origin` is used through `view` as `part`."""
        current = self._stack[-1] if self._stack else None
        recurrent = isinstance(current, (nn.RNNBase, nn.RNNCellBase))
        norm = current is not None and is_norm(current) and _owns(current, origin.root.address)
        uses = self.uses.setdefault(origin.weight, {})
        key = (part, view.shape, view.strides, view.address - origin.region.address, on_data, recurrent, norm)
        if key not in uses:
            dims = len(origin.root.shape)
            axes, groups = _axes(part, view, origin)
            uses[key] = Use(_operator(part.operator, dims, recurrent=recurrent, norm=norm), axes, on_data, groups=groups)
        if name := self._names.get(id(current)):
            uses[key].consumers[name] = None

    def _join(self, call: _Call) -> None:
        """Follow concatenated weights, each into its part of the result."""
        (result,), tensors, dim = call.results, call.arguments["tensors"], int(call.arguments.get("dim", 0))
        if call.operation == "stack":
            parts = result.unbind(dim)
        else:
            sizes = [tensor.shape[dim] if tensor.dim() == result.dim() else 0 for tensor in tensors]
            parts = tuple(result.narrow(dim, start, size) for start, size in zip(accumulate(sizes, initial=0), sizes, strict=False))
        for tensor, piece in zip(tensors, parts, strict=True):
            for origin in self._memory.origins(tensor) if piece.shape == tensor.shape else ():
                self._memory.add(result, Origin(origin.weight, region(piece), region(tensor), origin))

    def _look_up(self, call: _Call, tensor: Tensor, origin: Origin) -> None:
        """Follow the first row looked up along dimension 0, because all rows have the same layout: experts selected by token."""
        index = call.arguments.get("indices", call.arguments.get("index"))
        index = index[0] if isinstance(index, (list, tuple)) and len(index) == 1 else index
        if not isinstance(index, Tensor) or index.dtype == torch.bool or not index.numel() or int(call.arguments.get("dim", 0)) != 0:
            return
        row, first = tensor[int(index.flatten()[0])], call.results[0][(0,) * index.dim()]
        if row.shape == first.shape:
            self._memory.add(first, Origin(origin.weight, region(first), region(row), origin))


def is_norm(module: nn.Module) -> bool:
    """Whether `module` is a normalization, by the name of its class."""
    name: str = getattr(module, "original_name", type(module).__name__)  # the first in TorchScript
    return "Norm" in name and "Normal" not in name


def _owns(module: nn.Module, address: int) -> bool:
    return any(parameter.data_ptr() == address for parameter in module.parameters(recurse=False))


def _operator(operator: str, dims: int, *, recurrent: bool, norm: bool) -> str:
    """The operator's name, given the dimensions of the parameter and the kind of module that uses it."""
    if operator == "matmul":
        return "recurrent" if recurrent else "linear" if dims == 2 else "matmul"
    return "norm" if operator == "other" and norm else operator


def _axes(part: Role, view: Region, origin: Origin) -> tuple[tuple[int, ...], int]:
    """The output axes of the parameter, and the number of groups along its axis 0."""
    if part.reduced is None:
        return leading_axes(origin.root.shape), 1
    if part.groups == 1:
        return output_axes(origin, view, part.reduced), 1
    parts = view.split(part.groups)
    axes, meeting = output_axes(origin, parts, part.reduced), parts.meeting(origin.region)
    outer = set() if meeting is None else changing_axes(origin, parts, 0, meeting)
    if outer <= set(axes):
        return axes, 1
    if outer == {0} and origin.root.shape[0] == view.shape[0]:
        return axes, part.groups
    return tuple(sorted({*axes, *outer})), 1  # more rows than outputs


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def named(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an op, by name in its schema."""
    names = [argument.name for argument in func._schema.arguments]
    return dict(zip(names, args, strict=False)) | dict(kwargs)


def written(func: Any, arguments: Mapping[str, Any]) -> list[Tensor]:
    """The tensors among an op's arguments (by name) that it writes to."""
    changed = [each.name for each in func._schema.arguments if each.alias_info is not None and each.alias_info.is_write]
    return [tensor for name in changed for tensor in _tensors(arguments.get(name))]
