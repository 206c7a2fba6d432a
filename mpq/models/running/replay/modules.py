"""Replay of eager modules: recorded outputs of submodules that finished before the changed layer's first use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from mpq.data.dataset import Batch
from mpq.models.running.forward import forward
from mpq.models.running.operations import OperationCounter
from mpq.models.running.replay.tape import Tape
from mpq.models.running.swap import forwards_replaced, hooked
from mpq.records.layer import Layer


@dataclass
class _Call:
    """One call of a submodule in the reference pass."""

    name: str
    module: nn.Module
    parent: int | None
    start: int
    end: int = -1
    flops: float = 0.0
    output: Any = None
    versions: list[int] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    fills_inputs: bool = False

    @property
    def reusable(self) -> bool:
        """Whether the call had no other effects, and its output is only tensors in plain containers, unchanged after the call."""
        tensors = _tensors(self.output)
        return not self.fills_inputs and tensors is not None and [tensor._version for tensor in tensors] == self.versions


class ModuleTape(Tape):
    """Outputs of submodules, for one batch."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._names = {id(child): name for name, child in module.named_modules()}
        self._calls: list[_Call] = []
        self._single: set[str] = set()
        self._flops: list[float] | None = None
        self._total = 0.0

    def record(self, batch: Batch) -> None:
        """Run the reference on `batch` and keep the outputs of its submodules."""
        if self._flops is None:
            with OperationCounter() as counter:
                self._pass(batch, lambda: counter.products)
            self._flops, self._total = [call.flops for call in self._calls], counter.products
        self._pass(batch, lambda: 0.0)
        counts: dict[str, int] = {}
        for call in self._calls:
            counts[call.name] = counts.get(call.name, 0) + 1
        self._single = {call.name for call in self._calls if counts[call.name] == 1 and call.reusable}

    def run(self, batch: Batch, layer: Layer) -> tuple[Tensor, ...]:
        """The outputs with `layer` changed in place by the caller."""
        with forwards_replaced([(call.module, _recorded(call)) for call in map(self._calls.__getitem__, self._chosen(layer))]):
            return forward(self._module, batch)

    def work(self, layer: Layer) -> float:
        """Share of a whole forward pass, in floating-point operations, that a replay for `layer` runs."""
        if not self._flops or not self._total or len(self._flops) != len(self._calls):
            return 1.0
        return 1.0 - sum(self._flops[index] for index in self._chosen(layer)) / self._total

    def clear(self) -> None:
        """Forget the recorded batch."""
        self._calls, self._single = [], set()

    def _chosen(self, layer: Layer) -> list[int]:
        """The outermost calls that ended before the layer was first used."""
        starts = [call.start for call in self._calls if call.name in layer.consumers]
        seen = {call.name for call in self._calls}
        if not starts or not set(layer.consumers) <= seen:
            return []
        before = min(starts)
        ready = {index for index, call in enumerate(self._calls) if call.name in self._single and call.end < before}
        return [index for index in sorted(ready) if self._calls[index].parent not in ready]

    def _pass(self, batch: Batch, flops: Callable[[], float]) -> None:
        self._calls, stack, ticks = [], list[int](), iter(range(1 << 60))

        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            call = _Call(self._names[id(module)], module, stack[-1] if stack else None, next(ticks), flops=-flops())
            call.inputs = [id(leaf) for leaf in tree_leaves((args, kwargs))]
            stack.append(len(self._calls))
            self._calls.append(call)

        def leave(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            call = self._calls[stack.pop()]
            call.fills_inputs = call.inputs != [id(leaf) for leaf in tree_leaves((args, kwargs))]
            call.end, call.output = next(ticks), _copied(output)
            call.flops += flops()
            call.versions = [tensor._version for tensor in _tensors(output) or ()]

        children = [child for child in self._module.modules() if child is not self._module]
        handles = [child.register_forward_pre_hook(enter, with_kwargs=True) for child in children] + [
            child.register_forward_hook(leave, with_kwargs=True) for child in children
        ]
        with hooked(handles):
            forward(self._module, batch)


def _tensors(value: Any) -> list[Tensor] | None:
    """The tensors of an output; None if it contains anything but tensors, None and numbers in tuples, lists and dicts."""
    leaves = tree_leaves(value)
    if not all(leaf is None or isinstance(leaf, (Tensor, bool, int, float, str)) for leaf in leaves):
        return None
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _recorded(call: _Call) -> Callable[..., Any]:
    return lambda *_, **__: _copied(call.output)


def _copied(output: Any) -> Any:
    """The same tensors in new containers, which nothing else modifies."""
    return tree_map(lambda leaf: leaf, output)
