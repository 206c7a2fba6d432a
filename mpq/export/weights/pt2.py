"""A torch.export archive with packed weights, which its graph dequantizes with plain ATen operations.

It loads and runs with torch and without mpq. A torch.export source keeps its inputs and dynamic dimensions; a language model takes
`input_ids` of any batch size and length; all other models are traced with the user's samples.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mpq.data.batch import Batch
from mpq.export.abilities import Abilities, ExportError
from mpq.export.base import Options, Target, Written
from mpq.export.output_place import staged
from mpq.export.source import Source
from mpq.export.weights.calls import Tokens, call_of, takes_tokens
from mpq.export.weights.compare import Run, compared, half_of_the_digits
from mpq.export.weights.quiet import quiet
from mpq.export.weights.reopen import quantized_module
from mpq.formats.scheme import Scheme
from mpq.models.running.forward import outputs_of
from mpq.models.sources.exported_program import drop_traces
from mpq.records.layer import Layer
from mpq.shown import first_line
from mpq.tensors.kernels.codes import Codes
from mpq.tensors.kernels.graph import dequantize, padded
from mpq.tensors.matrix import from_matrix
from mpq.tensors.quantized import scales_of, unpack_weight


class Pt2(Target):
    """A program with packed weights."""

    ending = ".packed.pt2"
    abilities = Abilities(tuple(range(1, 9)), tuple(range(2, 9)), ragged=True)

    def takes(self, name: str) -> bool:
        """Every scheme is stored unchanged, so none needs replacing."""
        return False

    def expresses(self, layer: Layer, scheme: Scheme) -> bool:
        """Every scheme."""
        return True

    def write(self, source: Source, output: Path, options: Options) -> Written:
        """Trace the model around its packed weights, and save the program."""
        module, args, kwargs, shapes = _call(source, options)
        try:
            with quiet(), torch.no_grad():
                program = torch.export.export(module.eval(), args, kwargs, dynamic_shapes=shapes)
        except Exception as error:  # any failure in torch is caused by the model
            raise ExportError(f"torch.export cannot trace this model ({first_line(error)})") from error
        drop_traces(program)
        _shorten(program)
        main = isinstance(module, Tokens)
        with staged(output.parent, last=output.name) as folder:
            buffer = io.BytesIO()  # torch crashes the process if a file cannot be written
            with quiet():
                torch.export.save(program, buffer)
            (folder / output.name).write_bytes(buffer.getbuffer())
            buffer.close()  # the comparison loads the file again
            told = _compared(source, options, folder / output.name, main=main)
        return Written(output, (told, "it needs only torch: torch.export.load(path).module()"))


def _compared(source: Source, options: Options, file: Path, *, main: bool) -> str:
    def opened() -> Run:
        program = torch.export.load(file).module()
        return lambda call: outputs_of(program(*call.args, **call.kwargs), Batch(call.args, call.kwargs))

    return compared(source, options, "torch", opened, tolerance=half_of_the_digits(source), main=main)


def _shorten(program: ExportedProgram) -> None:
    """Remove redundant dtype checks from the graph, one for each conversion."""
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            program.graph.erase_node(node)


class _Packed(nn.Module):
    """A module whose weights are computed from packed buffers at each call."""

    def __init__(self, module: nn.Module, source: Source) -> None:
        super().__init__()
        self._hidden = [module]  # in a list, so that its own weights do not belong to this module
        self._layers: dict[str, tuple[Layer, Scheme]] = {}
        self._names: dict[str, str] = {}
        aliases = source.artifact.aliases
        layers = {layer.parameters[0]: layer for layer in source.artifact.layers}
        for name, tensor in module.state_dict().items():
            own = aliases.get(name, name)
            if own in layers:
                self._layers[name] = layers[own], source.schemes[layers[own].name]
            elif name == own:
                self.register_buffer(_flat(name), tensor.detach())
            self._names[name] = own
        with source.opened() as file:
            for layer in layers.values():
                scheme = source.schemes[layer.name]
                for part, tensor in _parts(layer, source, file).items():
                    filled = padded(tensor, scheme) if part in ("codes", "zero_points") else tensor
                    self.register_buffer(f"{_flat(layer.name)}__{part}", filled)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module with its weights."""
        made: dict[str, Tensor] = {}
        for name, own in self._names.items():
            if own not in made:
                made[own] = self._weight(*self._layers[name]) if name in self._layers else self.get_buffer(_flat(own))
        weights = {name: made[own] for name, own in self._names.items()}
        module = self._hidden[0]
        if "use_cache" in inspect.signature(module.forward).parameters:
            kwargs = {"use_cache": False, **kwargs}
        return torch.func.functional_call(module, weights, args, kwargs, tie_weights=False)

    def _weight(self, layer: Layer, scheme: Scheme) -> Tensor:
        parts = {stored.part: self.get_buffer(f"{_flat(layer.name)}__{stored.part}") for stored in scheme.stored(layer.matrix)}
        scales = scales_of(parts, scheme) if "scales" in parts else None
        codes = Codes("stored", scheme, layer.matrix, _first(parts), scales, parts.get("zero_points"))
        return from_matrix(dequantize(codes), layer.shape, layer.axes, layer.groups).to(getattr(torch, layer.dtype))


def _parts(layer: Layer, source: Source, file: Any) -> dict[str, Tensor]:
    """The stored tensors of a layer; those of a coded one as int8."""
    scheme = source.stored[layer.name]
    parts = {name: part.clone() for name, part in source.parts(layer, file).items()}
    return unpack_weight(parts, scheme, layer.matrix).in_memory().pack() if scheme.is_coded else parts


def _call(source: Source, options: Options) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any], Any]:
    """The module to trace, its arguments, and which of their dimensions are dynamic."""
    module = quantized_module(source, options)
    packed = _Packed(module, source)
    if takes_tokens(module, source, options):
        return Tokens(packed), (torch.arange(12).reshape(2, 6),), {}, ({0: Dim("batch"), 1: Dim("sequence")},)
    call = call_of(module, source, options)
    return packed, call.args, call.kwargs, call.shapes(Dim.AUTO)


def _flat(name: str) -> str:
    return name.replace(".", "__")


def _first(parts: Mapping[str, Tensor]) -> Tensor:
    return parts["codes"] if "codes" in parts else parts["values"]
