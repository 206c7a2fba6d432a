"""What ATen ops do with a weight: the name of the operator, and the dimensions of the weight that one output sums over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

OPERATORS = ("linear", "matmul", "conv", "recurrent", "embedding", "other")  # the heaviest first

# op -> argument -> the dimension of that argument that is summed over
_PRODUCTS: dict[str, dict[str, int]] = {
    "mm": {"self": -1, "mat2": -2},
    "addmm": {"mat1": -1, "mat2": -2},
    "_addmm_activation": {"mat1": -1, "mat2": -2},
    "bmm": {"self": -1, "mat2": -2},
    "baddbmm": {"batch1": -1, "batch2": -2},
    "addbmm": {"batch1": -1, "batch2": -2},
    "mv": {"self": -1},
    "addmv": {"mat": -1},
    "linear": {"input": -1, "weight": -1},
    "_linear_pointwise": {"X": -1, "W": -1},
    "_grouped_mm": {"self": -1, "mat2": -2},
    "grouped_mm_fallback": {"input": -1, "weight": -2},
}
_LOOKUPS = {
    "embedding": "weight",
    "embedding_bag": "weight",
    "_embedding_bag": "weight",
    "_embedding_bag_forward_only": "weight",
    "index_select": "self",
    "index": "self",
    "gather": "self",
}
_ENCODERS = {"_transformer_encoder_layer_fwd", "_native_multi_head_attention"}
_RECURRENT = re.compile(r"(rnn|lstm|gru)(_|$)|_thnn_")
_NORM = re.compile(r"(layer|batch|group|instance|rms)_norm")
_SHAPE_ONLY = re.compile(r"^new_|_like$|^(embedding_renorm|equal|allclose|_local_scalar_dense|_assert_tensor_metadata)$")
COPIES = {"clone", "_to_copy", "copy", "contiguous"}
JOINS = {"cat", "stack"}


class Role(NamedTuple):
    """What an op does with an argument.

    Args:
        operator: one of `OPERATORS`; "norm" for the parameters of a norm, "none" for an op that does not read the values.
        reduced: dimensions of the argument that one output sums over, given its number of dimensions; None if the op is unknown.
        groups: number of equal parts of the argument's first dimension, each with its own outputs; if there are several, `reduced` counts
            dimensions after splitting that dimension in two, like `Region.split`.
    """

    operator: str
    reduced: tuple[int, ...] | None = None
    groups: int = 1


def role(operation: str, argument: str, *, dims: int, arguments: Mapping[str, Any]) -> Role:
    """What the op `operation` does with a tensor of `dims` dimensions passed as `argument`.

    Args:
        operation: name without namespace and overload, for example "addmm".
        argument: name in the op's schema.
        dims: number of dimensions of the tensor.
        arguments: the op's other arguments by name.
    """
    if _SHAPE_ONLY.search(operation):
        return Role("none")
    if _NORM.search(operation) and argument not in ("input", "self"):
        return Role("norm")
    if argument in _PRODUCTS.get(operation, {}):
        return Role("matmul", (_PRODUCTS[operation][argument],))
    if "conv" in operation and argument == "weight":
        transposed = bool(arguments.get("transposed")) or "transpose" in operation
        groups = int(arguments.get("groups", 1))
        if transposed and groups > 1:  # the inputs of each group have their own outputs
            return Role("conv", _all_but(2, dims + 1)[1:], groups)
        return Role("conv", _all_but(1 if transposed else 0, dims))
    if _LOOKUPS.get(operation) == argument:
        return Role("embedding", _all_but(_indexed(arguments), dims))
    if _RECURRENT.search(operation) and argument.startswith(("weight", "params", "w_")):
        return Role("recurrent", _all_but(0, dims))
    if operation in _ENCODERS and "weight" in argument and "norm" not in argument:
        return Role("linear", _all_but(0, dims))
    if operation == "_trilinear" and argument == "i2":  # nn.Bilinear: [out, in1, in2]
        return Role("linear", _all_but(0, dims))
    return Role("other")


def _all_but(kept: int, dims: int) -> tuple[int, ...]:
    return tuple(dim for dim in range(dims) if dim != kept)


def _indexed(arguments: Mapping[str, Any]) -> int:
    """The dimension along which a lookup selects."""
    if "indices" in arguments and isinstance(arguments["indices"], (list, tuple)):
        return next((dim for dim, index in enumerate(arguments["indices"]) if index is not None), 0)
    return int(arguments.get("dim", 0))
