"""Integer activations in a graph: QuantizeLinear and DequantizeLinear around integer operators, and int8 weights next to them.

    static (a8)    x ─ QuantizeLinear ─ DequantizeLinear ─ operator          uint8, one scale and zero point
    dynamic (a8d)  x / scale of its token ─ QuantizeLinear ─ MatMulInteger ─ Cast ─ times both scales

Runtimes fuse the static form into integer operators. The weight of a convolution or product has the artifact's codes as int8, one scale
per output; its bias is int32 in steps of both scales. Batch norms behind a convolution are folded into the scales and the bias, which
changes no code. Where values only move (maximum pooling, reshapes), both sides of the move get the same range. The dynamic form quantizes
each token by itself, around the zero point 128, so that a sample's result does not depend on its batch; DynamicQuantizeLinear has one
scale for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from mpq.activations.operators import Numbers, Operator, operation_named, operator_of
from mpq.export.abilities import ExportError
from mpq.export.base import package
from mpq.formats.activations import MIDDLE, STATIC
from mpq.records.activations import ActivationGroup, Groups, RoundedTensor

_OPERATORS = {
    "conv": ("Conv",),
    "linear": ("Gemm", "MatMul"),
    "add": ("Add",),
    "cat": ("Concat",),
    "average": ("ReduceMean", "AveragePool", "GlobalAveragePool"),
}
_MOVES = ("MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Pad", "Identity")
_FX = "pkg.torch.onnx.fx_node"
_LARGEST = 127


class Tokens(NamedTuple):
    """uint8 codes around 128 in the shape of the tensor, and the scale of each token [..., 1]."""

    codes: Any
    scales: Any


def readers_in(program: Any) -> tuple[dict[str, tuple[str, int]], Counter[str]]:
    """The node of each reader in an exported program, and which of its inputs; then the number of operators by kind."""
    numbers, found = Numbers(), dict[str, tuple[str, int]]()
    for node in program.graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        names = [argument.name for argument in node.target._schema.arguments]
        given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        operator = _operator(node.target, given)
        if operator is not None:
            found |= {reader: (node.name, place) for place, reader in enumerate(numbers.readers(operator))}
    return found, numbers.counts


def _operator(target: Any, given: Mapping[str, Any]) -> Operator | None:
    values = torch.fx.node.map_arg(dict(given), lambda node: node.meta.get("val"))
    return operator_of(operation_named(target), values)


def numbered(groups: Groups, called: Sequence[str], converted: Counter[str]) -> dict[str, str]:
    """The name of each operator in the converted graph, which numbers only those that the output needs.

    Raises:
        ExportError: if it has another number of them, so that they cannot be told by their places.
    """
    kinds, found = sorted({reader.partition(".")[0] for group in groups.values() for reader in group.readers}), dict[str, str]()
    for kind in kinds:
        names = [name for name in called if name.partition(".")[0] == kind]
        if len(names) != converted[kind]:
            raise ExportError(
                f"the model calls {len(names)} operators '{kind}' and the converted graph has {converted[kind]}, so the tensors they "
                "read cannot be found: search again with --activations off, or delete their groups from the plan"
            )
        found |= {name: f"{kind}.{number}" for number, name in enumerate(names)}
    return found


class Integers:
    """Puts integer activations into a traced graph.

    Args:
        model: an `onnx_ir.Model`, as it was traced.
        program: the exported program that it was made from.
        groups: what is rounded.
        called: the operators that the model calls, in order, as far as its output needs them.
        signed: whether fixed ranges are around 0 and their codes int8.

    Raises:
        ExportError: if the converted graph has another number of them, so that they cannot be told by their places.
    """

    def __init__(self, model: Any, program: Any, groups: Groups, called: Sequence[str], *, signed: bool = False) -> None:
        self._ir, self._graph = package("onnx_ir", extra="onnx"), model.graph
        self._places, converted = readers_in(program)
        self._names = numbered(groups, called, converted)
        self._nodes: dict[tuple[str, str], Any] = {}
        for node in self._graph:
            name = node.metadata_props.get(_FX, "").partition(" ")[0].removeprefix("%")
            self._nodes[name, node.op_type] = node
        self._groups, self.signed = groups, signed
        self._made: dict[Any, Any] = {}
        self.ours: set[Any] = set()
        self.scales: dict[Any, float] = {}
        self.tokens: dict[Any, Tokens] = {}

    def insert(self) -> None:
        """Round the inputs of every reader.

        Raises:
            ExportError: if the graph has no such operator.
        """
        for group in self._groups.values():
            for tensor in group.tensors:
                for reader in tensor.readers:
                    self._round(reader, group, tensor)

    def _round(self, reader: str, group: ActivationGroup, tensor: RoundedTensor) -> None:
        node, place = self.node_of(reader)
        value = node.inputs[place]
        if value.dtype not in (None, self._ir.DataType.FLOAT):
            raise ExportError(f"'{reader}' reads {value.dtype.name.lower()}, and integer activations are exported for float32 models only")
        if group.scheme == STATIC:
            scale, zero_point = float(tensor.scale or 0), int(tensor.zero_point or 0)
            node.replace_input_with(place, self._static(value, node, scale, zero_point))
            self.scales[node] = scale
        else:
            self.tokens[node] = self._tokens(value, node)

    def node_of(self, reader: str) -> tuple[Any, int]:
        """The node of a reader, and which input of it the reader is."""
        kind, number, *rest = reader.split(".")
        name, place = self._places.get(".".join([self._names.get(f"{kind}.{number}", ""), *rest]), ("", 0))
        kinds = _OPERATORS[kind]
        node = next((self._nodes[name, kind] for kind in kinds if (name, kind) in self._nodes), None)
        if node is None:
            raise ExportError(
                f"the converted graph has no operator '{reader}', whose input is an integer: search again with --activations off, or "
                "delete its group from the plan"
            )
        return node, place

    def _static(self, value: Any, before: Any, scale: float, zero_point: int) -> Any:
        """The value after QuantizeLinear and DequantizeLinear; equal ones are made once."""
        key = (value, scale, zero_point)
        if key not in self._made:
            self._behind_moves(value, scale, zero_point)
            numbers = [
                self.constant(f"{value.name}.scale", np.array(scale, dtype=np.float32)),
                self.constant(f"{value.name}.zero_point", self._code(zero_point)),
            ]
            codes = self.node("QuantizeLinear", [value, *numbers])
            back = self.node("DequantizeLinear", [codes.outputs[0], *numbers])
            self.put([codes, back], value, before)
            back.outputs[0].shape, back.outputs[0].type = value.shape, value.type
            self._made[key] = back.outputs[0]
        return self._made[key]

    def _code(self, code: int) -> Any:
        return np.array(code - MIDDLE, dtype=np.int8) if self.signed else np.array(code, dtype=np.uint8)

    def _behind_moves(self, value: Any, scale: float, zero_point: int) -> None:
        """Round the same way where the values of `value` come from, if they only moved since."""
        mover = value.producer()
        if mover is not None and mover.op_type in _MOVES and len(value.uses()) == 1:
            mover.replace_input_with(0, self._static(mover.inputs[0], mover, scale, zero_point))

    def finish(self) -> None:
        """Let products whose weight stays floating point read what the codes of their tokens stand for."""
        for node, tokens in self.tokens.items():
            value = node.inputs[0]
            back = self.node("DequantizeLinear", [tokens.codes, *self._plain(value)])
            whole = self.node("Mul", [back.outputs[0], tokens.scales])
            whole.outputs[0].shape, whole.outputs[0].type = value.shape, value.type
            self.put([back, whole], None, node)
            node.replace_input_with(0, whole.outputs[0])

    def _tokens(self, value: Any, before: Any) -> Tokens:
        """The codes of the tokens of a value."""
        if value not in self._made:
            last = self.constant(f"{value.name}.last", np.array([-1], dtype=np.int64))
            high = self.node("ReduceMax", [value, last], keepdims=1)
            low = self.node("ReduceMin", [value, last], keepdims=1)
            negative = self.node("Neg", [low.outputs[0]])
            least = self.constant(f"{value.name}.least", np.array(1e-35, dtype=np.float32))
            largest = self.node("Max", [high.outputs[0], negative.outputs[0], least])
            scale = self.node("Div", [largest.outputs[0], self.constant(f"{value.name}.levels", np.array(_LARGEST, dtype=np.float32))])
            steps = self.node("Div", [value, scale.outputs[0]])
            codes = self.node("QuantizeLinear", [steps.outputs[0], *self._plain(value)])
            self.put([high, low, negative, largest, scale, steps, codes], value, before)
            self._made[value] = Tokens(codes.outputs[0], scale.outputs[0])
        found: Tokens = self._made[value]
        return found

    def _plain(self, value: Any) -> list[Any]:
        """A scale of 1 and the code of 0."""
        step = self.constant(f"{value.name}.step", np.array(1, dtype=np.float32))
        return [step, self.constant(f"{value.name}.middle", np.array(MIDDLE, dtype=np.uint8))]

    def node(self, kind: str, inputs: Sequence[Any], **attributes: Any) -> Any:
        """A node that is not yet in the graph."""
        return self._ir.node(kind, inputs, attributes=attributes)

    def put(self, nodes: Sequence[Any], behind: Any, before: Any) -> None:
        """Insert nodes right behind the node that makes a value, else before another node."""
        maker = behind.producer() if behind is not None else None
        if maker is not None:
            self._graph.insert_after(maker, nodes)
        elif behind is not None:
            self._graph.insert_before(self._graph[0], nodes)
        else:
            self._graph.insert_before(before, nodes)

    def constant(self, name: str, array: Any) -> Any:
        """An initializer of a free name."""
        free, number = name, 1
        while free in self._graph.initializers:
            number += 1
            free = f"{name}.{number}"
        tensor = self._ir.tensor(array, name=free)
        value = self._ir.Value(name=free, const_value=tensor, shape=tensor.shape, type=self._ir.TensorType(tensor.dtype))
        self._graph.register_initializer(value)
        self.ours.add(value)
        return value


def pooled(model: Any) -> None:
    """Averages over all of the image as GlobalAveragePool, which runtimes compute in integers; ReduceMean they do not."""
    ir = package("onnx_ir", extra="onnx")
    for node in list(model.graph):
        value, axes = node.inputs[0] if node.inputs else None, node.inputs[1] if len(node.inputs) > 1 else None
        if node.op_type != "ReduceMean" or axes is None or axes.const_value is None or value is None or value.shape is None:
            continue
        rank = len(value.shape)
        spatial = sorted(int(axis) % rank for axis in axes.const_value.numpy().tolist()) == list(range(2, rank))
        if not spatial or rank < 3:
            continue
        nodes = [ir.node("GlobalAveragePool", [value])]
        if "keepdims" in node.attributes and not node.attributes["keepdims"].as_int():
            nodes.append(ir.node("Squeeze", [nodes[0].outputs[0], axes]))
        last, old = nodes[-1].outputs[0], node.outputs[0]
        last.type, last.shape = old.type, old.shape
        model.graph.insert_before(node, nodes)
        old.replace_all_uses_with(last, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
        if not axes.uses():
            model.graph.initializers.pop(axes.name, None)
