"""Weights of operators that read integers: the artifact's codes as int8, one scale per output; batch norms folded into scales and bias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mpq.export.base import package
from mpq.export.source import Source
from mpq.export.weights.onnx.integers import Integers
from mpq.export.weights.onnx.tables import gathers_of, look_up
from mpq.export.weights.onnx.trace import PREFIX
from mpq.formats.activations import is_integer_product
from mpq.formats.scheme import Scheme
from mpq.records.layer import Layer
from mpq.tensors.quantized import QuantizedWeight

_BIAS_STEPS = 2.0**30  # so many steps of both scales hold a bias


class Parts(NamedTuple):
    """A weight in int8: codes in the shape of the parameter, and the scale of each of its outputs, along axis 0; arrays or constants."""

    codes: Any
    scales: Any


def multiplies_as_integers(scheme: Scheme, layer: Layer) -> bool:
    """Whether a runtime multiplies the weight as integers: one scale per output along axis 0, no zero point."""
    return is_integer_product(scheme) and layer.axes == (0,) and layer.groups == 1


class IntegerWeights:
    """Replaces the weights whose users all read integers.

    Args:
        model: the graph, in which `integers` are.
        integers: the activations.
        source: the artifact.
        positive: give all rows positive scales. Otherwise only those of layers whose result has several readers, because OpenVINO 2026.4
            computes a batch norm behind a negative scale wrongly if something else reads the result too.
        looks_up_codes: let products of tokens and lookups of rows read the same codes, where a table is also multiplied with.

    Attributes:
        turned: the layers of which a code changed by one step, since no int8 is its opposite.
    """

    def __init__(self, model: Any, integers: Integers, source: Source, *, positive: bool = False, looks_up_codes: bool = False) -> None:
        self._looks_up_codes = looks_up_codes
        self._graph, self._integers, self._source, self._positive = model.graph, integers, source, positive
        self.turned: list[str] = []
        canonical = source.artifact.aliases
        named = {name.removeprefix(PREFIX): value for name, value in model.graph.initializers.items()}
        self._places = {canonical.get(name, name): value for name, value in named.items()}

    def replace(self) -> set[str]:
        """Replace what can be; the names of these layers."""
        wanted = {layer.name: layer for layer in self._source.artifact.layers if self._is_wanted(layer)}
        for name, weight in self._source.weights():
            if name in wanted:
                self._replace(wanted[name], _parts(weight, wanted[name]))
        return set(wanted)

    def _is_wanted(self, layer: Layer) -> bool:
        place = self._places.get(layer.parameters[0])
        if place is None or not multiplies_as_integers(self._source.schemes[layer.name], layer) or place.is_graph_output():
            return False
        lookups = gathers_of(place) if self._looks_up_codes else []
        users = [user for user, _ in _users(place, but=lookups)]
        known = tuple(self._integers.tokens) if lookups else (*self._integers.scales, *self._integers.tokens)
        return bool(users) and all(user in known and _has_plain_bias(user) for user in users)

    def _replace(self, layer: Layer, parts: Parts) -> None:
        place = self._places[layer.parameters[0]]
        lookups = gathers_of(place)
        table = self._looked_up(layer, parts, lookups) if lookups else None
        users, shared = _users(place), len(_users(place)) > 1
        for user, is_transposed in users:
            own = parts
            if user.op_type == "Conv":
                own, bias = self._folded(user, parts, shared=shared)
                own = self._turned(user, layer.name, own)
                self._static(user, layer.name, own, axis=0, transposed=False)
                self._bias(user, layer.name, own, bias)
            elif user in self._integers.tokens:
                self._dynamic(user, layer.name, own, transposed=is_transposed, table=table)
            else:
                own = self._turned(user, layer.name, own)
                self._static(user, layer.name, own, axis=1 if is_transposed else 0, transposed=is_transposed)
                if user.op_type == "Gemm":
                    self._bias(user, layer.name, own, _array(user.inputs[2]) if len(user.inputs) > 2 else None)
        for node in [node for node, _ in place.uses()]:  # a transposition of its own for each user
            if not any(output.uses() for output in node.outputs):
                self._graph.remove(node, safe=True)
        if not place.uses():
            del self._graph.initializers[place.name]

    def _turned(self, user: Any, name: str, parts: Parts) -> Parts:
        """The weight with positive scales, if its user has to have them."""
        branching = len(user.outputs[0].uses()) > 1
        if not (self._positive or branching) or not (parts.scales < 0).any():
            return parts
        self.turned += [name]
        return positive(parts)

    def _static(self, user: Any, name: str, parts: Parts, *, axis: int, transposed: bool) -> None:
        codes = np.ascontiguousarray(parts.codes.T) if transposed else parts.codes
        scales = self._integers.constant(f"{name}.scales", parts.scales)
        zeros = self._integers.constant(f"{name}.zeros", np.zeros(len(parts.scales), dtype=np.int8))
        made = self._integers.node("DequantizeLinear", [self._integers.constant(f"{name}.codes", codes), scales, zeros], axis=axis)
        made.outputs[0].type, made.outputs[0].shape = user.inputs[1].type, user.inputs[1].shape
        self._integers.put([made], None, user)
        user.replace_input_with(1, made.outputs[0])

    def _bias(self, user: Any, name: str, parts: Parts, bias: Any) -> None:
        """A bias as int32 in steps of both scales, which integer operators add as it is."""
        if bias is None:
            if len(user.inputs) > 2:
                user.replace_input_with(2, None)
            return
        if self._integers.signed:  # TensorRT adds biases in floating point
            user.resize_inputs(3)
            user.replace_input_with(2, self._integers.constant(f"{name}.bias", bias.astype(np.float32)))
            return
        steps = (self._integers.scales[user] * parts.scales.astype(np.float64)).astype(np.float32)
        codes = np.rint(bias.astype(np.float64) / steps.astype(np.float64)).astype(np.int32)
        scales = self._integers.constant(f"{name}.bias_scales", steps)
        zeros = self._integers.constant(f"{name}.bias_zeros", np.zeros(len(codes), dtype=np.int32))
        made = self._integers.node("DequantizeLinear", [self._integers.constant(f"{name}.bias_codes", codes), scales, zeros], axis=0)
        self._integers.put([made], None, user)
        if len(user.inputs) < 3:
            user.resize_inputs(3)
        user.replace_input_with(2, made.outputs[0])

    def _folded(self, conv: Any, parts: Parts, *, shared: bool) -> tuple[Parts, Any]:
        """The weight and the bias of a convolution with the batch norm behind it, which is removed, where there is one."""
        bias = _array(conv.inputs[2]) if len(conv.inputs) > 2 else None
        users = conv.outputs[0].uses()
        norm = users[0].node if len(users) == 1 and users[0].node.op_type == "BatchNormalization" else None
        if (
            norm is not None
            and not shared
            and all(each.const_value is not None for each in norm.inputs[1:5])
            and not conv.outputs[0].is_graph_output()
        ):
            gamma, beta, mean, variance = (_array(value).astype(np.float64) for value in norm.inputs[1:5])
            epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5
            factor = gamma / np.sqrt(variance + epsilon)
            bias = beta + ((0.0 if bias is None else bias.astype(np.float64)) - mean) * factor
            parts = _scaled(parts, factor)
            norm.outputs[0].replace_all_uses_with(conv.outputs[0], replace_graph_outputs=True)
            self._graph.remove(norm, safe=True)
        return parts if bias is None else _wide_enough(parts, bias, self._integers.scales[conv]), bias

    def _looked_up(self, layer: Layer, parts: Parts, lookups: Sequence[Any]) -> Parts:
        """Let lookups read the codes of their rows; the constants of the whole table, which a product reads as well."""
        make, ir = self._integers, package("onnx_ir", extra="onnx")
        codes, scales = make.constant(f"{layer.name}.codes", parts.codes), make.constant(f"{layer.name}.scales", parts.scales)
        last = make.constant(f"{layer.name}.last", np.array([-1], dtype=np.int64))
        for node in lookups:
            look_up(ir, self._graph, node, codes, scales, last)
        return Parts(codes, scales)

    def _dynamic(self, user: Any, name: str, parts: Parts, *, transposed: bool, table: Parts | None) -> None:
        """MatMulInteger of the codes of tokens, times both scales, plus the bias.

        A table that is looked up, too, is turned when it is loaded: runtimes fold a Transpose of a constant.
        """
        make = self._integers
        codes, scale = make.tokens.pop(user)
        turned = transposed or _is_transposed(user)
        if table is None:
            weight = make.constant(f"{name}.codes", np.ascontiguousarray(parts.codes.T if turned else parts.codes))
        else:
            weight = self._turned_table(table.codes) if turned else table.codes
        product = make.node("MatMulInteger", [codes, weight, make.constant(f"{name}.middle", np.array(128, dtype=np.uint8))])
        cast = make.node("Cast", [product.outputs[0]], to=1)
        rows = make.node("Mul", [cast.outputs[0], scale])  # ONNX Runtime would fuse a product of both scales, as if there were one token
        scales = make.constant(f"{name}.scales", parts.scales) if table is None else table.scales
        nodes = [product, cast, rows, make.node("Mul", [rows.outputs[0], scales])]
        if user.op_type == "Gemm" and len(user.inputs) > 2 and user.inputs[2] is not None:
            nodes.append(make.node("Add", [nodes[-1].outputs[0], user.inputs[2]]))
        last, old = nodes[-1].outputs[0], user.outputs[0]
        last.type, last.shape = old.type, old.shape
        make.put(nodes, None, user)
        old.replace_all_uses_with(last, replace_graph_outputs=True)
        self._graph.remove(user, safe=True)

    def _turned_table(self, table: Any) -> Any:
        node = self._integers.node("Transpose", [table], perm=[1, 0])
        self._integers.put([node], table, None)
        return node.outputs[0]


def _is_transposed(user: Any) -> bool:
    return user.op_type == "Gemm" and "transB" in user.attributes and bool(user.attributes["transB"].as_int())


def _users(place: Any, *, but: Sequence[Any] = ()) -> list[tuple[Any, bool]]:
    """The operators that a weight reaches, and whether it is transposed on the way; without those of `but`."""
    found: list[tuple[Any, bool]] = []
    for node, index in place.uses():
        if node.op_type == "Transpose":
            found += [(user, True) for user, at in node.outputs[0].uses() if at == 1]
            found += [(node, True) for _, at in node.outputs[0].uses() if at != 1]
        elif node.op_type == "Shape" or node in but:
            continue
        else:
            found.append((node, False) if index == 1 else (None, False))
    return found


def _parts(weight: QuantizedWeight, layer: Layer) -> Parts:
    middle = 2 ** (weight.scheme.bits - 1)
    codes = (weight.codes.short() - middle).numpy().astype(np.int8).reshape(layer.shape)
    assert weight.scales is not None
    return Parts(codes, weight.scales.float().numpy().reshape(-1))


def _scaled(parts: Parts, factor: Any) -> Parts:
    """The weight times a factor for each output: its sign goes into the codes, where -128 does not hinder that."""
    negative = (factor < 0) & (parts.codes.reshape(len(factor), -1).min(1) > -128)
    spread = negative.reshape(-1, *[1] * (parts.codes.ndim - 1))
    scales = parts.scales.astype(np.float64) * np.where(negative, -factor, factor)
    return Parts(np.where(spread, -parts.codes, parts.codes).astype(np.int8), scales.astype(np.float32))


def positive(parts: Parts) -> Parts:
    """The weight with positive scales: rows with negative ones get the opposite codes, and 127 where that would be 128."""
    negative = (parts.scales < 0).reshape(-1, *[1] * (parts.codes.ndim - 1))
    codes = np.where(negative, np.minimum(-parts.codes.astype(np.int16), 127), parts.codes).astype(np.int8)
    return Parts(codes, np.abs(parts.scales))


def _wide_enough(parts: Parts, bias: Any, scale: float) -> Parts:
    """The weight with scales so large that each bias is an int32 in steps of both scales; smaller weights are lost beside such a bias."""
    least = np.maximum(np.abs(bias) / (_BIAS_STEPS * scale), 1e-30)
    small = np.abs(parts.scales) < least
    if not small.any():
        return parts
    scales = np.where(small, least, parts.scales).astype(np.float32)
    ratio = (parts.scales / scales).reshape(-1, *[1] * (parts.codes.ndim - 1))
    return Parts(np.rint(parts.codes * ratio).astype(np.int8), scales)


def _has_plain_bias(user: Any) -> bool:
    """Whether the bias of an operator is a constant, none, or zeros that the converter spreads out."""
    bias = user.inputs[2] if len(user.inputs) > 2 else None
    maker = None if bias is None else bias.producer()
    return bias is None or bias.const_value is not None or (maker is not None and maker.op_type == "Expand")


def _array(value: Any) -> Any:
    """The numbers of a constant; None where there is no value, or zeros that the converter spreads out."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    return None
