"""The operators that runtimes compute in integers, counted in the order in which a model calls them.

An operator is known by its kind and its number: `conv.3` is the fourth convolution. That name is the same in every form of a model (a
module, an exported program, TorchScript), since all of them call the same ATen operators in the same order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

_PRODUCTS = {"mm": ("self", "mat2"), "addmm": ("mat1", "mat2"), "linear": ("input", "weight")}
_CONVOLUTIONS = {"convolution", "_convolution", "conv1d", "conv2d", "conv3d", "mkldnn_convolution"}
AVERAGES = {"mean", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "_adaptive_avg_pool2d", "adaptive_avg_pool2d"}


class Operator(NamedTuple):
    """A call of an operator that a runtime may compute in integers.

    Args:
        kind: "conv", "linear", "add", "cat" or "average".
        inputs: the tensors that it reads, with the name of their argument.
        weight: the argument that holds the weight; None for an operator without one.
    """

    kind: str
    inputs: tuple[tuple[str, Tensor], ...]
    weight: Tensor | None = None


def operator_of(operation: str, arguments: Mapping[str, Any]) -> Operator | None:
    """The operator that a call of `operation` is; None for any other.

    Args:
        operation: name without namespace, overload and the underscore of in-place variants.
        arguments: by their names in the schema.
    """
    if operation in _CONVOLUTIONS and not arguments.get("transposed"):
        name = "input" if "input" in arguments else "self"
        return _made("conv", ((name, arguments[name]),), arguments["weight"])
    if operation in _PRODUCTS:
        given, weight = _PRODUCTS[operation]
        return _made("linear", ((given, arguments[given]),), arguments[weight])
    if operation == "add":
        pair = (("self", arguments["self"]), ("other", arguments["other"]))
        return _made("add", pair) if all(isinstance(each, Tensor) and each.dim() for _, each in pair) else None
    if operation == "cat":
        joined = tuple(("tensors", each) for each in arguments["tensors"])
        return _made("cat", joined) if len(joined) > 1 else None  # of one tensor, it is a copy
    if operation in AVERAGES:
        name = "self" if "self" in arguments else "input"
        return _made("average", ((name, arguments[name]),))
    return None


def _made(kind: str, inputs: tuple[tuple[str, Tensor], ...], weight: Tensor | None = None) -> Operator | None:
    return Operator(kind, inputs, weight) if all(tensor.is_floating_point() for _, tensor in inputs) else None


class Numbers:
    """Counts operators by kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def readers(self, operator: Operator) -> list[str]:
        """The names of the inputs of the next operator of its kind: "conv.3", or "add.0.0" and "add.0.1"."""
        number = self.counts[operator.kind]
        self.counts[operator.kind] += 1
        name = f"{operator.kind}.{number}"
        return [name] if operator.kind not in ("add", "cat") else [f"{name}.{place}" for place in range(len(operator.inputs))]


def operation_named(func: Any) -> str:
    """The name of an ATen operator without namespace, overload and the underscore of in-place variants."""
    name: str = func._schema.name.split("::")[-1]
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name
