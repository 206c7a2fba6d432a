"""A model as an ONNX graph in floating point, its weights still under their names.

A torch.export source is converted directly, with its own dynamic dimensions. A language model of a Hugging Face folder is traced with
`input_ids` of any batch size and length. All other models are traced with the user's samples, for any batch size, and for any number of
tokens in inputs of integers, if the model allows it.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from mpq.data.batch import Batch
from mpq.export.abilities import ExportError
from mpq.export.base import Options
from mpq.export.source import Source
from mpq.export.weights.quiet import quiet
from mpq.export.weights.reopen import quantized_module, sample
from mpq.models.running.forward import main_output
from mpq.models.sources.exported_program import read_program
from mpq.records.artifact import PROGRAM
from mpq.shown import first_line

OPSET = 21  # the first version with 4-bit integers and scales per block
PREFIX = "traced."  # prefix of every parameter of a traced module


class _Traced(nn.Module):
    """Gives only the main output, and is called like the original."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.traced = module

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        return _outputs(self.traced(*args, **kwargs))


class _TracedNames(_Traced):
    """Takes by position what the original takes by name: torch.export refuses dynamic dimensions of inputs that a `**kwargs` collects."""

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__(module)
        self._names = names

    def forward(self, *args: Any) -> tuple[Tensor, ...]:
        first = len(args) - len(self._names)
        return super().forward(*args[:first], **dict(zip(self._names, args[first:], strict=True)))


class _TracedTokens(_Traced):
    """A model that takes only token ids; its parameter's name becomes that of the graph's input."""

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        cached = "use_cache" in inspect.signature(self.traced.forward).parameters
        return _outputs(self.traced(input_ids=input_ids, **({"use_cache": False} if cached else {})))


def trace(source: Source, options: Options) -> Any:
    """The ONNX graph, a `torch.onnx.ONNXProgram`, of an artifact; names of initializers are those of the state dict, some after `PREFIX`.

    Raises:
        ExportError: if the model cannot be converted, with the converter's reason.
    """
    try:
        with quiet(), torch.no_grad():
            return _convert(source, options)
    except torch.onnx.errors.OnnxExporterError as error:
        cause = error.__cause__ or error
        raise ExportError(
            f"torch.onnx cannot convert this model ({first_line(cause)}): see `mpq --verbose export` for the full reason"
        ) from error


def _convert(source: Source, options: Options) -> Any:
    if source.kind == "export":
        return torch.onnx.export(_program(source), opset_version=OPSET, optimize=False, verbose=False, dynamo=True)
    module = quantized_module(source, options)
    if options.data is None and source.kind == "hf" and "input_ids" in inspect.signature(module.forward).parameters:
        shapes: Any = ({0: Dim("batch"), 1: Dim("sequence")},)
        return _traced(_TracedTokens(module), (torch.arange(12).reshape(2, 6),), shapes, input_names=["input_ids"])
    batch = sample(module, source, options)
    try:
        return _sampled(module, batch, any_length=True)
    except torch.onnx.errors.OnnxExporterError:
        return _sampled(module, batch, any_length=False)


def _sampled(module: nn.Module, batch: Batch, *, any_length: bool) -> Any:
    """The graph of a module, traced with some samples; with `any_length`, sequences of tokens may have any number of them."""
    rows = iter(batch.sampled)
    shapes = pytree.tree_map(lambda leaf: _dynamic(leaf, next(rows), any_length=any_length), (batch.args, batch.kwargs))
    values = (*batch.args, *batch.kwargs.values())
    plain = not batch.args and all(isinstance(value, Tensor) for value in values)
    wrapped = _TracedNames(module, tuple(batch.kwargs))
    return _traced(wrapped, values, {"args": (*shapes[0], *shapes[1].values())}, input_names=list(batch.kwargs) if plain else None)


def _traced(module: nn.Module, args: tuple[Any, ...], shapes: Any, *, input_names: list[str] | None) -> Any:
    return torch.onnx.export(
        module.eval(),
        args,
        dynamic_shapes=shapes,
        input_names=input_names,
        opset_version=OPSET,
        optimize=False,
        verbose=False,
        dynamo=True,
    )


def _outputs(value: Any) -> tuple[Tensor, ...]:
    _, main = main_output(value)
    return tuple(leaf for leaf in pytree.tree_leaves(main) if isinstance(leaf, Tensor) and leaf.is_floating_point())


def _dynamic(leaf: Any, sampled: bool, *, any_length: bool) -> Any:
    if not isinstance(leaf, Tensor) or not sampled:
        return None
    tokens = any_length and leaf.dim() == 2 and not leaf.is_floating_point()
    return {0: Dim.AUTO, 1: Dim.AUTO} if tokens else {0: Dim.AUTO}


def _program(source: Source) -> ExportedProgram:
    """The program of the artifact with its unquantized tensors; the weights of layers stay zero."""
    with source.opened() as file:
        program = read_program(file.get_tensor(PROGRAM).numpy().tobytes())
    aliases = source.artifact.aliases
    rest = source.rest()
    for name, tensor in program.state_dict.items():
        value = rest.get(aliases.get(name, name))
        if value is not None:
            tensor.data.copy_(value)
    return program
