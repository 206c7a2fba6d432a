"""A torch.export archive that holds packed weights and dequantizes them inside its graph, by operations of ATen alone.

It loads and runs with torch and without mpq. A torch.export source keeps its inputs and dynamic dimensions; a language model takes
`input_ids` of any batch and length; everything else is traced with samples that the user gives.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from mpq.export.base import Abilities, ExportError, Options, Target, Written
from mpq.export.reopen import quantized_module, sample
from mpq.export.source import Source
from mpq.files import atomic_write
from mpq.models.forward import first_line, main_output
from mpq.models.program import drop_traces, read_program
from mpq.records.artifact import PROGRAM
from mpq.records.layer import Layer
from mpq.schemes import Scheme
from mpq.tensors.kernels.codes import Codes
from mpq.tensors.kernels.graph import dequantize, padded
from mpq.tensors.matrix import from_matrix


class Pt2(Target):
    """A program with packed weights."""

    ending = ".packed.pt2"
    abilities = Abilities(tuple(range(1, 9)), tuple(range(2, 9)), ragged=True)

    def takes(self, name: str) -> bool:
        """Every scheme is stored as it is, so none needs replacing."""
        return False

    def write(self, source: Source, output: Path, options: Options) -> Written:
        """Trace the model around its packed weights, and save the program."""
        module, args, kwargs, shapes = _call(source, options)
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                program = torch.export.export(module.eval(), args, kwargs, dynamic_shapes=shapes)
        except Exception as error:  # the model decides what goes wrong in torch, so any failure is the model's
            raise ExportError(f"torch.export cannot trace this model ({first_line(error)})") from error
        drop_traces(program)
        _shorten(program)
        with atomic_write(output) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(program, file)
        return Written(output, ("it needs torch alone: torch.export.load(path).module()",))


def _shorten(program: ExportedProgram) -> None:
    """Take checks of dtypes that are known anyway out of the graph, one for each conversion."""
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            program.graph.erase_node(node)


class _Packed(nn.Module):
    """A module whose weights are made from packed buffers whenever it is called."""

    def __init__(self, module: nn.Module, source: Source) -> None:
        super().__init__()
        self._hidden = [module]  # in a list, so that its own weights are none of this module's
        self._layers: dict[str, tuple[Layer, Scheme]] = {}
        self._names: dict[str, str] = {}
        aliases = source.artifact.aliases
        layers = {layer.parameters[0]: layer for layer in source.artifact.layers}
        for name, tensor in module.state_dict().items():
            own = aliases.get(name, name)
            if own in layers:
                self._layers[name] = layers[own], source.artifact.schemes[layers[own].name]
            elif name == own:
                self.register_buffer(_flat(name), tensor.detach())
            self._names[name] = own
        with source.opened() as file:
            for layer in layers.values():
                scheme = source.artifact.schemes[layer.name]
                for part in scheme.stored(layer.matrix):
                    tensor = file.get_tensor(f"{layer.name}.{part.part}").clone()
                    filled = padded(tensor, scheme) if part.part in ("codes", "zero_points") else tensor
                    self.register_buffer(f"{_flat(layer.name)}__{part.part}", filled)

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
        codes = Codes("stored", scheme, layer.matrix, _first(parts), parts.get("scales"), parts.get("zero_points"))
        return from_matrix(dequantize(codes), layer.shape, layer.axes).to(getattr(torch, layer.dtype))


class _Tokens(nn.Module):
    """A language model that takes token ids alone and gives its main output; the graph's input has its name."""

    def __init__(self, packed: _Packed) -> None:
        super().__init__()
        self.packed = packed

    def forward(self, input_ids: Tensor) -> Any:
        """Logits, or the last hidden state."""
        return main_output(self.packed(input_ids=input_ids))[1]


def _call(source: Source, options: Options) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any], Any]:
    """The module to trace, its arguments, and which of their dimensions are dynamic."""
    module = quantized_module(source, options)
    packed = _Packed(module, source)
    if source.kind == "export":
        args, kwargs, dynamic = _own_inputs(source)
    elif options.data is None and source.kind == "hf" and "input_ids" in inspect.signature(module.forward).parameters:
        return _Tokens(packed), (torch.arange(12).reshape(2, 6),), {}, ({0: Dim("batch"), 1: Dim("sequence")},)
    else:
        batch = sample(module, source, options)
        rows = iter(batch.sampled)
        args, kwargs = batch.args, dict(batch.kwargs)
        dynamic = pytree.tree_map(lambda leaf: {0: Dim.AUTO} if isinstance(leaf, Tensor) and next(rows) else None, (args, kwargs))
    shapes = {name: shape for name, shape in (("args", dynamic[0]), ("kwargs", dynamic[1])) if shape}
    return packed, args, kwargs, shapes


def _own_inputs(source: Source) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Inputs of the shapes that a program was exported with: zeros, each dynamic dimension as long as it was then."""
    with source.opened() as file:
        program = read_program(file.get_tensor(PROGRAM).numpy().tobytes(), hollow=True)
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    given = [values.get(spec.arg.name) for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    structure = program.module_call_graph[0].signature
    assert structure is not None
    args, kwargs = pytree.tree_unflatten([_example(value) for value in given], structure.in_spec)
    dynamic = pytree.tree_unflatten([_dynamic(value) for value in given], structure.in_spec)
    return tuple(args), dict(kwargs), dynamic


def _example(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    sizes = [size if isinstance(size, int) else int(size.node.hint or 2) for size in value.shape]
    return torch.zeros(sizes, dtype=value.dtype)


def _dynamic(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return None
    return {axis: Dim.AUTO for axis, size in enumerate(value.shape) if not isinstance(size, int)} or None


def _flat(name: str) -> str:
    return name.replace(".", "__")


def _first(parts: Mapping[str, Tensor]) -> Tensor:
    return parts["codes"] if "codes" in parts else parts["values"]
