"""ONNX: the model as a graph whose weights are int4 or int8 codes behind DequantizeLinear, with the artifact's own scales.

    codes, int4 or int8 [rows, columns]  ─┐
    scales, fp16 [rows, groups] ─ Cast ───┴─ DequantizeLinear (axis 1, block_size) ─ Reshape, Transpose ─ Cast ─ the weight

Reshape and Transpose appear only if a weight has several scales per row and more than two dimensions, or if its rows are not its first
axis. Scales are stored as fp16 and cast to fp32 first, so the weights are exactly those of the artifact. Symmetric codes are stored
around zero, asymmetric ones unchanged, with their zero points. ONNX has no 3, 5, 6 or 7 bits. Operators: DequantizeLinear of ONNX opset 21.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpq.export.abilities import Abilities, ExportError
from mpq.export.base import Options, Target, Written, package
from mpq.export.output_place import staged
from mpq.export.source import Source
from mpq.export.weights.onnx.tables import look_up, lookups_of
from mpq.records.layer import Layer
from mpq.shown import first_line, listed
from mpq.tensors.matrix import grouped_axes, grouped_shape
from mpq.tensors.quantized import QuantizedWeight

_LARGEST_FILE = 1 << 30  # above this, weights go to a separate file: protobuf is limited to 2 GiB

_SHOWN = 6
_TURNED = "rows with negative scales got positive ones, which moves their largest weight by one step where its code was -128: "
_TENSORRT = (
    "activations have int8 codes around 0 and biases are in floating point, as TensorRT takes them; the graph passes ONNX's checker. "
    "ONNX Runtime and OpenVINO are faster without --symmetric"
)
_USE = (
    "use: onnxruntime.InferenceSession; it may compute int4 matrix products with 8-bit activations; the session entry "
    "session.qdq_matmulnbits_accuracy_level = 1 prevents that",
    "session.disable_quant_qdq = 1 unpacks the weights once when loading: more memory, faster where ONNX Runtime has no kernel for them",
)


class Onnx(Target):
    """For ONNX Runtime on the CPU, and OpenVINO."""

    ending = ".onnx"
    abilities = Abilities(bits=(4, 8), asymmetric_bits=(4, 8), ragged=True)
    keeps_activations = True
    has_symmetric = True
    looks_up_codes = True  # of tables, instead of dequantizing them whole

    def check(self, source: Source, options: Options) -> None:
        """Import the converter.

        Raises:
            ExportError: if it is not installed.
        """
        for name in ("onnx", "onnxscript", "onnx_ir"):
            package(name, extra="onnx")

    def places(self, output: Path) -> tuple[Path, ...]:
        """The graph, and a file with its weights if they are too large for one file."""
        return output, output.with_name(f"{output.name}.data")

    def write(self, source: Source, output: Path, options: Options) -> Written:
        """Trace, replace each weight, simplify, save."""
        with staged(output.parent, last=output.name) as folder:
            notes, large = self.save(source, folder / output.name, options)
            if options.symmetric:
                _checked(folder / output.name)
                notes.append(_TENSORRT)
            told = _compared(source, options, folder / output.name)
        notes += [f"the weights are in {output.name}.data: keep the two files together"] if large else []
        data = (output.with_name(f"{output.name}.data"),) if large else ()
        return Written(output, (*notes, told, *_USE), data)

    def save(self, source: Source, graph: Path, options: Options) -> tuple[list[str], bool]:
        """Write the graph; what to tell of it, and whether its weights are in a file next to it."""
        model, notes = quantized_graph(source, options, looks_up_codes=self.looks_up_codes)
        large = sum(value.const_value.nbytes for value in model.graph.initializers.values()) > _LARGEST_FILE
        package("onnx_ir", extra="onnx").save(model, graph, external_data=f"{graph.name}.data" if large else None)
        return notes, large


def _compared(source: Source, options: Options, graph: Path) -> str:
    from mpq.export.weights.compare import compared, flat

    def opened() -> Any:
        runtime = package("onnxruntime", extra="onnx")
        chosen = runtime.SessionOptions()
        chosen.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        session = runtime.InferenceSession(graph, chosen)
        names = [given.name for given in session.get_inputs()]
        return lambda call: [
            torch.from_numpy(found)
            for found in session.run(None, {name: tensor.numpy() for name, tensor in zip(names, flat(call), strict=True)})
        ]

    return compared(source, options, "onnxruntime", opened, tolerance=tolerance(source), main=source.kind != "export")


def tolerance(source: Source) -> float:
    """How far outputs may differ from the artifact's: by a few roundings of 8 bits where activations are integers."""
    from mpq.export.weights.compare import half_of_the_digits, rounded_inputs

    return rounded_inputs(source) if source.activations else half_of_the_digits(source)


def quantized_graph(source: Source, options: Options, *, looks_up_codes: bool) -> tuple[Any, list[str]]:
    """The model of an artifact as an `onnx_ir.Model` with quantized weights, and what to tell of it.

    Raises:
        ExportError: if the model cannot be converted, or a layer's weight is not found in the graph.
    """
    from mpq.export.weights.compare import operators_of
    from mpq.export.weights.onnx.integer_weights import IntegerWeights
    from mpq.export.weights.onnx.integers import Integers, pooled
    from mpq.export.weights.onnx.trace import trace

    made = trace(source, options)
    model, done, ours, notes = made.model, set[str](), set[Any](), list[str]()
    if source.activations:
        called = operators_of(source, options)
        integers = Integers(model, made.exported_program, source.activations, called, signed=options.symmetric)
        integers.insert()
        weights = IntegerWeights(model, integers, source, positive=options.symmetric, looks_up_codes=looks_up_codes)
        done = weights.replace()
        notes = [_TURNED + listed(weights.turned, _SHOWN)] if weights.turned else []
        integers.finish()
        ours = integers.ours
    ours |= _Weights(model, source, done, looks_up_codes=looks_up_codes).replace()
    _simplify(model, ours)
    if source.activations:
        pooled(model)
    return model, notes


def _checked(graph: Path) -> None:
    """Let ONNX's own checker read the graph, shapes and types included.

    Raises:
        ExportError: with what it finds.
    """
    onnx = package("onnx", extra="onnx")
    try:
        onnx.checker.check_model(graph, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"onnx refuses the graph ({first_line(error)}): this is a bug in mpq, please report it") from error


class _Weights:
    """Replaces initializers of a graph by codes and scales."""

    def __init__(self, model: Any, source: Source, done: set[str], *, looks_up_codes: bool) -> None:
        from mpq.export.weights.onnx.trace import PREFIX

        self._ir = package("onnx_ir", extra="onnx")
        self._graph, self._source, self._done, self._looks_up_codes = model.graph, source, done, looks_up_codes
        self._made: dict[str, Any] = {}
        canonical = source.artifact.aliases
        named = {name.removeprefix(PREFIX): value for name, value in model.graph.initializers.items()}
        self._places = {canonical.get(name, name): value for name, value in named.items()}

    def replace(self) -> set[Any]:
        """Replace every layer's weight; returns the new values."""
        layers = {layer.name: layer for layer in self._source.artifact.layers if layer.name not in self._done}
        lost = [name for name, layer in layers.items() if layer.parameters[0] not in self._places]
        if lost:
            raise ExportError(
                f"the converted graph has no weight for '{lost[0]}', perhaps because it was merged into another: leave it out of the plan"
            )
        added: set[Any] = set()
        for name, weight in self._source.weights():
            if name in self._done:
                continue
            place = self._places[layers[name].parameters[0]]
            added |= self._looked_up(layers[name], weight, place)
            if not place.uses():
                del self._graph.initializers[place.name]
                continue
            nodes = self._weight(layers[name], weight, place)
            self._graph.insert_before(self._graph[0], nodes)
            added |= {value for node in nodes for value in (*node.inputs, *node.outputs)}
            place.replace_all_uses_with(nodes[-1].outputs[0], replace_graph_outputs=True)
            del self._graph.initializers[place.name]
        return added

    def _looked_up(self, layer: Layer, weight: QuantizedWeight, place: Any) -> set[Any]:
        """Let lookups of rows read codes; the new values."""
        found = lookups_of(place, weight) if self._looks_up_codes and _is_whole(layer, weight) else []
        if not found:
            return set()
        assert weight.scales is not None
        codes = self._constant(f"{layer.name}.codes", _codes(weight.codes, weight).reshape(layer.shape))
        scales = self._constant(f"{layer.name}.scales", weight.scales.numpy()[:, 0])
        last = self._constant(f"{layer.name}.last", np.array([-1], dtype=np.int64))
        nodes = [node for each in found for node in look_up(self._ir, self._graph, each, codes, scales, last)]
        return {value for node in nodes for value in (*node.inputs, *node.outputs)}

    def _weight(self, layer: Layer, weight: QuantizedWeight, place: Any) -> list[Any]:
        """Nodes that compute the weight of `layer`, which is the last one's output, in the type of `place`."""
        whole = _is_whole(layer, weight)
        shape = layer.shape if whole else weight.matrix
        if weight.scales is None:
            nodes = [self._cast(self._constant(f"{layer.name}.values", _float_array(weight.codes).reshape(shape)), "FLOAT")]
        else:
            nodes = self._dequantize(layer.name, weight, shape)
        if whole:
            return self._finished(nodes, place)
        split = layer.groups > 1
        sizes, axes = (grouped_shape(layer.shape, layer.groups), grouped_axes(layer.axes)) if split else (layer.shape, layer.axes)
        rows_first = [*axes, *(axis for axis in range(len(sizes)) if axis not in axes)]
        if len(axes) > 1 or len(sizes) > 2:
            nodes.append(self._reshape(nodes[-1], f"{layer.name}.shape", [sizes[axis] for axis in rows_first]))
        if rows_first != sorted(rows_first):
            inverse = sorted(range(len(rows_first)), key=rows_first.__getitem__)
            nodes.append(self._ir.node("Transpose", [nodes[-1].outputs[0]], attributes={"perm": inverse}))
        if split:
            nodes.append(self._reshape(nodes[-1], f"{layer.name}.whole", layer.shape))
        return self._finished(nodes, place)

    def _finished(self, nodes: list[Any], place: Any) -> list[Any]:
        """The nodes with a value of the type and shape of `place` at their end."""
        if place.dtype != self._ir.DataType.FLOAT:
            nodes.append(self._cast(nodes[-1].outputs[0], place.dtype.name))
        nodes[-1].outputs[0].type = place.type
        nodes[-1].outputs[0].shape = place.shape
        return nodes

    def _reshape(self, node: Any, name: str, shape: Sequence[int]) -> Any:
        return self._ir.node("Reshape", [node.outputs[0], self._constant(name, np.array(shape, dtype=np.int64))])

    def _dequantize(self, name: str, weight: QuantizedWeight, shape: tuple[int, ...]) -> list[Any]:
        """Cast of the scales, then DequantizeLinear: float32 in the shape of the codes, which is `shape`."""
        assert weight.scales is not None
        scales = weight.scales.numpy()
        attributes: dict[str, int] = {"axis": 1, "block_size": weight.scheme.group_size or 0}
        if scales.shape[1] == 1:
            scales, attributes = scales[:, 0], {"axis": 0}
        cast = self._cast(self._constant(f"{name}.scales", scales), "FLOAT")
        inputs = [self._constant(f"{name}.codes", _codes(weight.codes, weight).reshape(shape)), cast.outputs[0]]
        if weight.zero_points is not None:
            zeros = _codes(weight.zero_points, weight)
            inputs.append(self._constant(f"{name}.zero_points", zeros if scales.ndim == 2 else zeros[:, 0]))
        return [cast, self._ir.node("DequantizeLinear", inputs, attributes=attributes)]

    def _cast(self, value: Any, dtype: str) -> Any:
        return self._ir.node("Cast", [value], attributes={"to": self._ir.DataType[dtype]})

    def _constant(self, name: str, array: Any) -> Any:
        if name in self._made:  # of a table that is looked up, too
            return self._made[name]
        tensor = self._ir.tensor(array, name=name)
        value = self._ir.Value(name=name, const_value=tensor, shape=tensor.shape, type=self._ir.TensorType(tensor.dtype))
        self._graph.register_initializer(value)
        self._made[name] = value
        return value


def _is_whole(layer: Layer, weight: QuantizedWeight) -> bool:
    """Whether a weight can be stored in its own shape: its rows are its first axis, and no row has several scales.

    OpenVINO refuses some graphs with a Reshape.
    """
    return layer.axes == (0,) and layer.groups == 1 and (weight.scales is None or weight.scales.shape[1] == 1)


def _codes(codes: Tensor, weight: QuantizedWeight) -> Any:
    """Codes or zero points in their ONNX type: signed around zero if symmetric, else unsigned."""
    import ml_dtypes

    bits = weight.scheme.bits
    if weight.zero_points is not None:
        return codes.numpy().astype(ml_dtypes.uint4 if bits == 4 else np.uint8)
    return (codes.short() - 2 ** (bits - 1)).numpy().astype(ml_dtypes.int4 if bits == 4 else np.int8)


def _float_array(values: Tensor) -> Any:
    import ml_dtypes

    return values.float().numpy().astype(ml_dtypes.bfloat16) if values.dtype == torch.bfloat16 else values.numpy()


def _simplify(model: Any, ours: Iterable[Any]) -> None:
    """Fold constants except `ours`, and remove traces of the tracing machine."""
    optimizer = package("onnxscript.optimizer", extra="onnx")
    kept = set(ours)
    optimizer.optimize_ir(model, should_fold=lambda node: False if kept.intersection(node.inputs) else None)
    model.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
