"""The graph of a model with weights replaced by codes, in the patterns that ExecuTorch's kernels match.

linear, convolution     input ─ choose_qparams ─ quantize ─ dequantize ─┐
                        codes, scales ─ dequantize_per_channel[_group] ─┴─ linear or convolution [─ times the rows' signs]
embedding               embedding_4bit or embedding_byte of codes, scales and indices
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from mpq.export.abilities import ExportError
from mpq.export.base import Options
from mpq.export.source import Source
from mpq.export.weights.calls import PREFIX, Tokens, call_of, takes_tokens
from mpq.export.weights.executorch.weights import Signed, signed_codes, with_positive_scales
from mpq.export.weights.quiet import quiet
from mpq.export.weights.reopen import quantized_module
from mpq.shown import first_line
from mpq.tensors.matrix import from_matrix
from mpq.tensors.quantized import QuantizedWeight

_LONGEST = 512  # tokens for which output memory is planned in advance
_SMALLEST_SCALE = 2.0**-23
_INT8 = (-128, 127, torch.int8)


class Graph:
    """A traced model, and where it uses each layer of an artifact."""

    def __init__(self, source: Source, options: Options) -> None:
        module = quantized_module(source, options)
        self.notes: list[str] = []
        self.tokens = takes_tokens(module, source, options)
        self._layers = {layer.name: layer for layer in source.artifact.layers}
        self._trace(module, source, options)
        names = {layer.parameters[0]: layer.name for layer in source.artifact.layers}
        self._places: dict[str, list[Node]] = {name: [] for name in self._layers}
        for node in self._module.graph.find_nodes(op="get_attr"):
            name = str(node.target).removeprefix(PREFIX)
            layer = names.get(source.artifact.aliases.get(name, name))
            if layer is not None:
                self._places[layer].append(node)
        self._uses = {name: self._kinds(places) for name, places in self._places.items()}

    def uses(self, name: str) -> set[str]:
        """How the layer is used: "linear", "convolution", "embedding"; empty if any use is something else."""
        return self._uses[name]

    def put(self, name: str, weight: QuantizedWeight) -> None:
        """Replace a layer's weight by codes."""
        for place in self._places[name]:
            for node in list(place.users):
                getattr(self, f"_put_{_kind(node, place)}")(name, weight, node)
            self._drop(place)

    def program(self) -> ExportedProgram:
        """The program of the changed graph."""
        self._module.graph.lint()
        self._module.recompile()
        return _export(self._module, *self._inputs)

    def _trace(self, module: nn.Module, source: Source, options: Options) -> None:
        half = sorted({str(tensor.dtype) for tensor in module.state_dict().values() if tensor.is_floating_point()} - {"torch.float32"})
        if half and source.kind == "export":
            raise ExportError(
                f"this program computes in {half[0].removeprefix('torch.')}, but XNNPACK computes in float32 here: export the model in "
                "float32"
            )
        if self.tokens:
            longest = min(_LONGEST, int(source.artifact.config.get("max_position_embeddings") or _LONGEST))
            self._inputs: tuple[Any, ...] = ((torch.arange(6)[None],), {}, ({1: Dim("sequence", min=1, max=longest)},))
            module = Tokens(module)
            self.notes.append(f"it takes input_ids of shape [1, 1 to {longest}]")
        else:
            call = call_of(module, source, options)
            args, kwargs = pytree.tree_map(lambda leaf, axes: leaf[:1] if 0 in axes else leaf, (call.args, call.kwargs), call.dynamic)
            self._inputs = (args, kwargs, None)
            shapes = [list(leaf.shape) for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            self.notes.append("it takes inputs of shape " + ", ".join(map(str, shapes)))
        program = _export(module.float() if half else module, *self._inputs)
        self._module: GraphModule = program.module(check_guards=False)

    def _kinds(self, places: list[Node]) -> set[str]:
        found = {_kind(node, place) for place in places for node in place.users}
        return set() if "other" in found else found

    def _put_linear(self, name: str, weight: QuantizedWeight, node: Node) -> None:
        signed = with_positive_scales(weight)
        per_token = torch.ops.quantized_decomposed
        with self._module.graph.inserting_before(node):
            call = self._module.graph.call_function
            chosen = call(per_token.choose_qparams_per_token_asymmetric.default, (node.args[0], torch.int8))
            scale, zero = self._both(chosen)
            codes = call(per_token.quantize_per_token.default, (node.args[0], scale, zero, *_INT8))
            rounded = call(per_token.dequantize_per_token.default, (codes, scale, zero, *_INT8, torch.float32))
            self._replace(node, name, rounded, self._weight(name, signed, weight), signed.signs)

    def _put_convolution(self, name: str, weight: QuantizedWeight, node: Node) -> None:
        signed = with_positive_scales(weight)
        whole = torch.ops.quantized_decomposed
        layer = self._layers[name]
        shaped = Signed(from_matrix(signed.codes, layer.shape, layer.axes, layer.groups), signed.scales, signed.signs)
        with self._module.graph.inserting_before(node):
            call = self._module.graph.call_function
            chosen = call(whole.choose_qparams.tensor, (node.args[0], -128, 127, _SMALLEST_SCALE, torch.int8))
            scale, zero = self._both(chosen)
            codes = call(whole.quantize_per_tensor.tensor, (node.args[0], scale, zero, *_INT8))
            rounded = call(whole.dequantize_per_tensor.tensor, (codes, scale, zero, *_INT8))
            self._replace(node, name, rounded, self._weight(name, shaped, weight), signed.signs)

    def _put_embedding(self, name: str, weight: QuantizedWeight, node: Node) -> None:
        assert weight.scales is not None
        codes = signed_codes(weight).to(torch.int8)
        operator, limits = torch.ops.quantized_decomposed.embedding_byte.dtype, (-128, 127)
        if weight.scheme.bits == 4:
            halves = weight.codes.view(len(codes), -1, 2)
            codes = halves[..., 0] << 4 | halves[..., 1]
            operator, limits = torch.ops.quantized_decomposed.embedding_4bit.dtype, (-8, 7)
        with self._module.graph.inserting_before(node):
            table = (self._attribute(f"{name}.table", codes), self._attribute(f"{name}.table_scales", weight.scales.float()), None)
            found = self._module.graph.call_function(operator, (*table, *limits, node.args[1]), {"dtype": torch.float32})
        node.replace_all_uses_with(found)
        self._module.graph.erase_node(node)

    def _weight(self, name: str, signed: Signed, weight: QuantizedWeight) -> Node:
        """The node that gives the weight in float32."""
        operators, bits = torch.ops.quantized_decomposed, weight.scheme.bits
        limits = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, torch.int8)
        scales = signed.scales if weight.scheme.group_size else signed.scales[:, 0]
        parts = [
            self._attribute(f"{name}.{part}", tensor)
            for part, tensor in (("codes", signed.codes), ("scales", scales), ("zeros", torch.zeros(scales.shape, dtype=torch.int64)))
        ]
        if weight.scheme.group_size:
            arguments = (*parts, *limits, weight.scheme.group_size, torch.float32)
            return self._module.graph.call_function(operators.dequantize_per_channel_group.default, arguments)
        return self._module.graph.call_function(operators.dequantize_per_channel.default, (*parts, 0, *limits))

    def _replace(self, node: Node, name: str, given: Node, weight: Node, signs: Tensor | None) -> None:
        """Call the node's operator on other inputs, and flip the sign of some rows of its output."""
        graph, arguments = self._module.graph, [given, weight, *node.args[2:]]
        if signs is not None and len(arguments) > 2 and isinstance(arguments[2], Node):
            bias = self._module.get_parameter(str(arguments[2].target)).detach() if arguments[2].op == "get_attr" else None
            if bias is None:
                raise ExportError(f"the bias of '{name}' is computed, which is not supported where scales are negative: use onnx")
            arguments[2] = self._attribute(f"{name}.bias", bias * signs)
        found = graph.call_function(node.target, tuple(arguments), node.kwargs)  # type: ignore[arg-type]
        if signs is not None:
            rows = signs if node.target is torch.ops.aten.linear.default else signs[:, None, None]
            found = graph.call_function(torch.ops.aten.mul.Tensor, (found, self._attribute(f"{name}.signs", rows)))
        node.replace_all_uses_with(found)
        graph.erase_node(node)

    def _both(self, node: Node) -> tuple[Node, Node]:
        get = importlib.import_module("operator").getitem
        return self._module.graph.call_function(get, (node, 0)), self._module.graph.call_function(get, (node, 1))

    def _attribute(self, name: str, tensor: Tensor) -> Node:
        flat = "mpq_" + name.replace(".", "_")
        self._module.register_buffer(flat, tensor.contiguous())
        return self._module.graph.get_attr(flat)

    def _drop(self, place: Node) -> None:
        """Remove an unused weight from the module."""
        self._module.graph.erase_node(place)
        holder, _, last = str(place.target).rpartition(".")
        if not any(node.target == place.target for node in self._module.graph.find_nodes(op="get_attr")):
            delattr(self._module.get_submodule(holder), last)


def _kind(node: Node, weight: Node) -> str:
    """How a node uses a weight."""
    aten = torch.ops.aten
    if node.target is aten.linear.default and node.args[1] is weight and node.args[0] is not weight:
        return "linear"
    if node.target is aten.embedding.default and node.args[0] is weight:
        return "embedding"
    if node.target is aten.conv2d.default and node.args[1] is weight:
        groups = node.args[6] if len(node.args) > 6 else 1
        return "convolution" if groups == 1 else "other"
    return "other"


def _export(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any) -> ExportedProgram:
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(module, args, kwargs, dynamic_shapes=shapes)
    except Exception as error:  # any failure in torch is caused by the model
        raise ExportError(f"torch.export cannot trace this model ({first_line(error)})") from error
