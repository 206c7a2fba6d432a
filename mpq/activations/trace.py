"""Which tensor is read by whom: one forward pass under a dispatch mode.

A tensor is what one operator computes. Views, copies, padding with zeros and maximum pooling pass a tensor on: its values stay among those
that it had, so that they share one range.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mpq.activations.operators import AVERAGES, Numbers, Operator, operation_named, operator_of
from mpq.data.batch import Batch
from mpq.models.layers.dispatch_watch import named
from mpq.models.layers.state_tensors import state_of
from mpq.models.memory.storage_tracker import Memory, pointer
from mpq.models.running.forward import call, plain_attention
from mpq.models.running.swap import tensor_of
from mpq.records.layer import Layer

_PASSES = re.compile(
    r"^(clone|_to_copy|contiguous|constant_pad_nd|max_pool\dd(_with_indices)?|mkldnn_max_pool\dd|pixel_(un)?shuffle"
    r"|native_channel_shuffle|upsample_nearest\dd|_unsafe_view|_reshape_alias|detach|alias|slice_scatter|repeat|flip|roll)$"
)
_HOMOGENEOUS = re.compile(r"^(relu|leaky_relu|_prelu_kernel|neg|mul|upsample_\w+)$")
_FUSED = re.compile(r"^(relu|hardtanh|clamp_min|.*batch_norm.*)$")


@dataclass
class Source:
    """What one operator computed, or an input of the model.

    Args:
        operation: name of the operator, "input" for an input.
        kind: of an integer operator, see `operators.py`; "fused" for what runtimes fuse into the operator before; else "".
        inputs: numbers of the tensors that it was computed from.
        readers: the inputs of integer operators that read it.
        others: operations that read it and are not integer operators.
        is_output: whether the model returns it.
        name: of the integer operator that computed it, such as "add.0".
        tensors: the model's own tensors that it was computed from, by argument; "" for one that is not a whole tensor of the state dict.
        homogeneous: whether it grows by a factor as its inputs do, channel by channel, for any positive factor.
    """

    operation: str
    kind: str = ""
    inputs: tuple[int, ...] = ()
    readers: list[str] = field(default_factory=list)
    others: list[tuple[str, int]] = field(default_factory=list)
    is_output: bool = False
    name: str = ""
    tensors: dict[str, str] = field(default_factory=dict)
    homogeneous: bool = False


@dataclass
class Trace:
    """What one pass showed.

    Args:
        sources: every tensor, in order.
        layers: the layer whose weight a reader multiplies with, by reader; only for "conv" and "linear".
        work: multiplications of a reader, for the whole batch.
        counts: integer operators by kind.
        uses: how many operators read a tensor of the state dict, by name; a part of it counts twice.
    """

    sources: list[Source] = field(default_factory=list)
    layers: dict[str, str] = field(default_factory=dict)
    work: dict[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    uses: Counter[str] = field(default_factory=Counter)

    def reaching(self) -> list[str]:
        """The integer operators whose results reach an output of the model, in order; exporters drop all others."""
        wanted = {number for number, source in enumerate(self.sources) if source.is_output}
        for number in reversed(range(len(self.sources))):  # what is read was made before
            wanted |= set(self.sources[number].inputs) if number in wanted else set()
        return [source.name for number, source in enumerate(self.sources) if number in wanted and source.name]


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fills a trace."""

    def __init__(self, module: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace, self._numbers = Trace(), Numbers()
        self._memory = Memory([*module.parameters(), *module.buffers()])
        self._weights = {pointer(tensor_of(module, layer.parameters[0])): layer.name for layer in layers}
        self._places = {name: (tensor.data_ptr(), tensor.numel(), tensor.nbytes) for name, tensor in reversed(state_of(module).items())}
        self._names = {place[:2]: name for name, place in self._places.items() if place[1]}
        self._known: dict[int, int] = {}
        self._kept: list[Tensor] = []  # a freed storage's identity would be given to another tensor

    def finished(self, result: Any) -> Trace:
        """The trace, with the outputs marked."""
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and (number := self._known.get(_key(leaf))) is not None:
                self.trace.sources[number].is_output = True
        self.trace.counts = self._numbers.counts
        return self.trace

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        given = kwargs or {}
        arguments = named(func, args, given)
        read = [leaf for leaf in tree_leaves((args, given)) if isinstance(leaf, Tensor)]
        result = func(*args, **given)
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if not func.is_view and not (made and not func._schema.is_mutable and self._memory.shared(made, read)):
            self._see(operation_named(func), arguments, read, made)
        return result

    def _see(self, operation: str, arguments: Mapping[str, Any], read: list[Tensor], made: list[Tensor]) -> None:
        operator = operator_of(operation, arguments)
        readers = [] if operator is None else self._numbers.readers(operator)
        on_data = any(tensor.dim() and not self._memory.is_state(tensor) for tensor in read)
        sources = tuple(dict.fromkeys(self._source(each) for each in read if on_data and self._is_data(each)))
        self._memory.write(made, on_data=on_data)
        own = {argument: self._name(value) for argument, value in arguments.items() if self._is_own(value)}
        self._kept += made
        if not on_data or not sources:
            return
        if operation == "copy" or _passes(operation, arguments):
            self._known |= {_key(each): sources[-1 if operation == "copy" else 0] for each in made}
            return
        number = len(self.trace.sources)
        name = ".".join(readers[0].split(".")[:2]) if readers else ""
        kind = "" if operator is None else operator.kind
        self.trace.sources.append(Source(operation, kind or ("fused" if _FUSED.match(operation) else ""), sources, name=name, tensors=own))
        self.trace.sources[number].homogeneous = is_homogeneous(operation, arguments)
        if operator is not None and self._is_integer(operator, readers, made):
            for reader, (_, tensor) in zip(readers, operator.inputs, strict=True):
                self.trace.sources[self._source(tensor)].readers.append(reader)
        else:
            self.trace.sources[number].kind = "fused" if _FUSED.match(operation) else ""
            for source in sources:
                self.trace.sources[source].others.append((operation, number))
        self._known |= {_key(each): number for each in made}

    def _is_integer(self, operator: Operator, readers: list[str], made: list[Tensor]) -> bool:
        """Whether data meets a layer's weight, or data meets data."""
        if not all(self._is_data(tensor) for _, tensor in operator.inputs):
            return False
        if operator.weight is None:
            return True
        layer = self._weights.get(pointer(operator.weight))
        if layer is None:
            return False
        self.trace.layers[readers[0]] = layer
        columns = operator.inputs[0][1].shape[-1] if operator.kind == "linear" else operator.weight[0].numel()
        self.trace.work[readers[0]] = made[0].numel() * columns
        return True

    def _is_data(self, tensor: Tensor) -> bool:
        return tensor.is_floating_point() and tensor.dim() > 0 and not self._memory.is_state(tensor)

    def _is_own(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.dim() > 0 and self._memory.is_state(value)

    def _name(self, tensor: Tensor) -> str:
        """The name of one of the model's own tensors, counting its use; "" for a part of one, and for what is computed from some."""
        name = self._names.get((tensor.data_ptr(), tensor.numel()))
        if name is not None:
            self.trace.uses[name] += 1
            return name
        for other, (start, _, size) in self._places.items():
            self.trace.uses[other] += 2 * (start <= tensor.data_ptr() < start + size)
        return ""

    def _source(self, tensor: Tensor) -> int:
        key = _key(tensor)
        if key not in self._known:
            self._known[key] = len(self.trace.sources)
            self.trace.sources.append(Source("input"))
            self._kept.append(tensor)
        return self._known[key]


def _passes(operation: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a call gives values of its input, and zeros."""
    if operation == "cat":
        return len(arguments["tensors"]) == 1
    return _PASSES.match(operation) is not None and not arguments.get("value")


def is_homogeneous(operation: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a call gives, channel by channel, f times its result for f times its data, for any f > 0.

    A product of two tensors that both come from the data is so in each of them alone.
    """
    if operation == "clamp_min":
        return arguments.get("min") == 0
    return operation in AVERAGES or _HOMOGENEOUS.match(operation) is not None


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def trace(module: nn.Module, batch: Batch, layers: Sequence[Layer]) -> Trace:
    """What one call of `module` reads and computes; the module and its weights are unchanged.

    Args:
        module: the model.
        batch: one call's inputs, best a small one: everything that is computed stays in memory meanwhile.
        layers: the searched layers.
    """
    watch = _Watch(module, layers)
    with plain_attention(), watch:
        result = call(module, batch)
    return watch.finished(result)
