"""How an artifact's model is called for tracing: its inputs, and which of their dimensions are dynamic."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mpq.export.base import Options
from mpq.export.source import Source
from mpq.export.weights.reopen import sample
from mpq.models.running.forward import main_output
from mpq.models.sources.exported_program import read_program
from mpq.records.artifact import PROGRAM

PREFIX = "model."  # prefix of every name inside `Tokens`


@dataclass(frozen=True)
class Call:
    """One call of a model.

    Args:
        args: positional inputs, the batch first.
        kwargs: inputs by name.
        dynamic: for each input a frozenset of the dynamic dimensions; nested like (args, kwargs).
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic: tuple[Any, Any]

    def shapes(self, dimension: Any) -> dict[str, Any]:
        """The dynamic_shapes for `torch.export`, with `dimension` for each dynamic dimension."""
        args, kwargs = pytree.tree_map(lambda axes: dict.fromkeys(axes, dimension) or None, self.dynamic)
        return {name: shape for name, shape in (("args", args), ("kwargs", kwargs)) if shape}


class Tokens(nn.Module):
    """A language model that takes only token ids and gives its main output; the graph's input has its name."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Any:
        """Logits, or the last hidden state."""
        cached = "use_cache" in inspect.signature(self.model.forward).parameters
        return main_output(self.model(input_ids=input_ids, **({"use_cache": False} if cached else {})))[1]


def takes_tokens(module: nn.Module, source: Source, options: Options) -> bool:
    """Whether a model is called with only token ids."""
    return options.data is None and source.kind == "hf" and "input_ids" in inspect.signature(module.forward).parameters


def call_of(module: nn.Module, source: Source, options: Options) -> Call:
    """The call of a model that takes other inputs than tokens.

    A torch.export source keeps its inputs (zeros here) and its dynamic dimensions; all other models use the user's samples.

    Raises:
        ExportError: if the model has no example inputs and no data is given.
    """
    if source.kind == "export":
        return _own_call(source)
    batch = sample(module, source, options)
    inputs = (batch.args, dict(batch.kwargs))
    leaves, structure = pytree.tree_flatten(inputs)
    places = [frozenset({axis} if sampled else ()) for _, sampled, axis in zip(leaves, batch.sampled, batch.axes, strict=False)]
    dynamic = pytree.tree_unflatten(places, structure)
    return Call(*inputs, dynamic)


def _own_call(source: Source) -> Call:
    """The inputs of a program: zeros; each dynamic dimension has its length from the export."""
    with source.opened() as file:
        program = read_program(file.get_tensor(PROGRAM).numpy().tobytes(), hollow=True)
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    given = [values.get(spec.arg.name) for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    structure = program.module_call_graph[0].signature
    assert structure is not None
    args, kwargs = pytree.tree_unflatten([_example(value) for value in given], structure.in_spec)
    return Call(tuple(args), dict(kwargs), pytree.tree_unflatten([_dynamic(value) for value in given], structure.in_spec))


def _example(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    sizes = [size if isinstance(size, int) else int(size.node.hint or 2) for size in value.shape]
    return torch.zeros(sizes, dtype=value.dtype)


def _dynamic(value: Any) -> frozenset[int]:
    shape = value.shape if isinstance(value, Tensor) else ()
    return frozenset(axis for axis, size in enumerate(shape) if not isinstance(size, int))
