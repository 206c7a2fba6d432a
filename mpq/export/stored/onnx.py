"""An ONNX graph: codes behind DequantizeLinear, with the operators that use them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mpq.errors import FormatError
from mpq.export.base import package
from mpq.export.stored.base import Held, Place, as_values, integer_scheme
from mpq.shown import first_line
from mpq.tensors.quantized import QuantizedWeight

_CODES = ".codes"
_SHAPERS = ("Cast", "Reshape", "Transpose", "Identity")
PREFIX = "traced."  # prefix of every parameter of a traced module
_BITS = {"int4": 4, "uint4": 4, "int8": 8, "uint8": 8}


class LookedUp(NamedTuple):
    """Rows of a table: its codes and scales, and the codes that are looked up. It has what readers want of a DequantizeLinear."""

    input: list[str]
    output: list[str]
    attribute: tuple[Any, ...] = ()


class Multiplied(NamedTuple):
    """A product of integers: the codes of its weight, columns first, and its scales. It has what readers want of a DequantizeLinear."""

    input: list[str]
    output: list[str]
    op_type: str = "MatMulInteger"
    attribute: tuple[Any, ...] = ()


class Graph:
    """An ONNX model and the connections of its nodes."""

    def __init__(self, path: Path) -> None:
        onnx = package("onnx", extra="onnx")
        try:
            self.model = onnx.load(path)
        except Exception as error:  # protobuf has its own errors
            raise FormatError(f"{path} is not an ONNX file, or is damaged ({first_line(error)})") from error
        self.initializers = {each.name: each for each in self.model.graph.initializer}
        self.users: dict[str, list[Any]] = defaultdict(list)
        self.makers: dict[str, Any] = {}
        for node in self.model.graph.node:
            self.makers |= dict.fromkeys(node.output, node)
            for name in dict.fromkeys(node.input):
                self.users[name].append(node)

    def array(self, name: str) -> Any:
        """The constant `name`, even if a Cast is in between; None if it is computed."""
        node = self.makers.get(name)
        if name not in self.initializers and node is not None and node.op_type == "Cast":
            name = node.input[0]
        if name not in self.initializers:
            return None
        return package("onnx.numpy_helper", extra="onnx").to_array(self.initializers[name])

    def dequantized(self) -> dict[str, Any]:
        """The nodes that compute a layer's weight from its codes, or rows of it that are looked up, by its place."""
        nodes = [node for node in self.model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in self.initializers]
        weights = {node.input[0].removesuffix(_CODES): node for node in nodes if self.array(node.input[0]).dtype.name in _BITS}
        return self._products() | self._tables() | weights

    def constants(self) -> dict[str, Any]:
        """The biases in int32 and the zero points of activations, by name."""
        users = [(node, 0) for node in self.model.graph.node if node.op_type == "DequantizeLinear"]
        users += [(node, 2) for node in self.model.graph.node if node.op_type == "QuantizeLinear"]
        names = {node.input[place] for node, place in users if len(node.input) > place and node.input[place] in self.initializers}
        return {name: array for name in sorted(names) if (array := self.array(name)).ndim < 2}

    def _products(self) -> dict[str, Multiplied]:
        nodes = [node for node in self.model.graph.node if node.op_type == "MatMulInteger" and node.input[1] in self.initializers]
        return {node.input[1].removesuffix(_CODES): Multiplied([node.input[1], self._scales_of(node)], list(node.output)) for node in nodes}

    def _scales_of(self, product: Any) -> str:
        """The scales of the rows that a product of integers is multiplied with, after those of the tokens."""
        value = product.output[0]
        while True:
            node = next(iter(self.users[value]))
            scales = [name for name in node.input if name in self.initializers]
            if scales or node.op_type not in ("Cast", "Mul"):
                return scales[0] if scales else ""
            value = node.output[0]

    def _tables(self) -> dict[str, LookedUp]:
        nodes = [node for node in self.model.graph.node if node.op_type == "Gather" and node.input[0] in self.initializers]
        found = {node.input[0].removesuffix(_CODES): node for node in nodes if node.input[0].endswith(_CODES)}
        return {place: LookedUp([node.input[0], f"{place}.scales"], list(node.output)) for place, node in found.items()}

    def users_of(self, value: str) -> list[Any]:
        """The nodes that use a weight, skipping those that only reshape it."""
        found = []
        for node in self.users[value]:
            found += self.users_of(node.output[0]) if node.op_type in _SHAPERS else [node]
        return found

    def result_of(self, value: str) -> str | None:
        """The output of the first user of a weight, including the bias; None if nothing uses it."""
        user = next(iter(self.users_of(value)), None)
        if user is None:
            return None
        name: str = user.output[0]
        after = self.users[name]
        biased = len(after) == 1 and after[0].op_type == "Add" and any(each in self.initializers for each in after[0].input)
        return after[0].output[0] if biased else name

    def with_outputs(self, names: Iterable[str]) -> bytes:
        """The model with more of its values as outputs."""
        return self._copy(list(self.model.graph.node), names, keep=True)

    def computed(self, name: str) -> bytes:
        """A model without inputs that computes one value from constants."""
        needed: list[Any] = []
        wanted = [name]
        while wanted:
            node = self.makers.get(wanted.pop())
            if node is not None and node not in needed:
                needed.insert(0, node)
                wanted += list(node.input)
        return self._copy(needed, [name], keep=False)

    def _copy(self, nodes: list[Any], outputs: Iterable[str], *, keep: bool) -> bytes:
        onnx = package("onnx", extra="onnx")
        made, graph = onnx.ModelProto(), self.model.graph
        made.CopyFrom(onnx.ModelProto(ir_version=self.model.ir_version, opset_import=self.model.opset_import))
        made.graph.name = graph.name
        made.graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        made.graph.initializer.extend(each for each in graph.initializer if keep or each.name in used)
        if keep:
            made.graph.input.extend(graph.input)
            made.graph.output.extend(graph.output)
            made.functions.extend(self.model.functions)
        there = {each.name for each in made.graph.output}
        made.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(outputs) if name not in there)
        content: bytes = made.SerializeToString()
        return content


def read(path: Path, places: Iterable[Place]) -> Held:
    """The contents of a graph."""
    graph = Graph(path)
    nodes = graph.dequantized()
    weights = {place: _weight(graph, node) for place, node in nodes.items()}
    uses = {place: _users_by_kind(graph, node) for place, node in nodes.items()}
    taken = {name for node in nodes.values() for name in _constants(graph, node)}
    floats = {name: array for name in graph.initializers if name not in taken and _is_float(array := graph.array(name))}
    others = {name: _tensor(array) for name, array in (floats | graph.constants()).items()}
    for place in places:
        whole = as_values(others, place, f"{place.name}.values", f"{place.name}.weight", f"{PREFIX}{place.name}.weight")
        if place.name not in weights and whole is not None:
            weights[place.name], uses[place.name] = whole[1], _uses(graph, whole[0])
            others.pop(whole[0])
    return Held(weights, others, uses)


def _users_by_kind(graph: Graph, node: Any) -> tuple[str, ...]:
    """The operators that use a weight; the codes of a table may be multiplied, too."""
    products = [user for user in graph.users_of(node.input[0]) if user.op_type == "MatMulInteger" and isinstance(node, LookedUp)]
    return tuple(sorted(user.op_type for user in (*graph.users_of(node.output[0]), *products)))


def _uses(graph: Graph, name: str) -> tuple[str, ...]:
    return tuple(sorted(user.op_type for user in graph.users_of(name)))


def _weight(graph: Graph, node: Any) -> QuantizedWeight:
    codes, scales = graph.array(node.input[0]), graph.array(node.input[1])
    codes = codes.T if columns_first(node) else codes
    zeros = graph.array(node.input[2]) if len(node.input) > 2 else None
    bits, signed = _BITS[codes.dtype.name], codes.dtype.name.startswith("i")
    zeros = None if zeros is None or (signed and not zeros.any()) else zeros
    block = _attribute(node, "block_size")
    matrix = codes.reshape(len(codes), -1)
    spread = scales.reshape(len(codes), -1).astype(np.float32)
    scheme = integer_scheme(
        bits, groups=spread.shape[1], columns=matrix.shape[1], group_size=block or matrix.shape[1], symmetric=zeros is None
    )
    shifted = matrix.astype(np.int16) + (2 ** (bits - 1) if signed else 0)
    zero_points = None if zeros is None else torch.from_numpy(zeros.reshape(spread.shape).astype(np.uint8))
    return QuantizedWeight(
        scheme, (matrix.shape[0], matrix.shape[1]), torch.from_numpy(shifted.astype(np.uint8)), torch.from_numpy(spread), zero_points
    )


def columns_first(node: Any) -> bool:
    """Whether the codes of a weight are [columns, rows], as products of integers read them."""
    return isinstance(node, Multiplied) or (_attribute(node, "axis") == 1 and not _attribute(node, "block_size"))


def _attribute(node: Any, name: str) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)


def _constants(graph: Graph, node: Any) -> list[str]:
    """The initializers that are inputs of a node, also through a Cast."""
    return [graph.makers[name].input[0] if name in graph.makers else name for name in node.input]


def _is_float(array: Any) -> bool:
    return array.dtype.name in ("float16", "bfloat16", "float32", "float64")


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32 if array.dtype.name == "bfloat16" else array.dtype))
