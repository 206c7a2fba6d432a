"""The operators that a model from a file may call without trust.

The rule is safe by default. Only the namespaces `aten` and `prims` and a list of higher-order operators are allowed; all others, including
custom ones, need trust. Within them, an operator is judged by its schema: every argument must be a plain value, and every string argument
must be known to select a mode. An operator that takes a file name, a storage, a stream or a C++ object is refused, and so are the few that
access memory without bounds checks, or print.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import torch

_PLAIN = re.compile(
    r"Tensor|Any|AnyEnumType|Device|Generator|Future|bool|complex|float|int|number|str|t|t1|t2|tVal|List|Optional|Dict|Tuple"
)
_TEXTS = re.compile(
    r"UPLO|activation|algorithm|approximate|assert_msg|device_type|driver|equation|indexing|interpolation|message|mode|norm|ord|p"
    r"|pad_mode|padding|padding_side|reduce|rounding_mode|side|type"
    # names of dimensions, which older versions of torch have:
    r"|dim[0-2]?|dims|start_dim|end_dim|out_?dim|names|order"
    # TorchScript's operators on strings, lists and dictionaries:
    r"|a|b|chars|dict|el|fillchar|idx|input|inputs|item|key|l|new|old|self|separator|string|s|substr|t|to_add|values"
)
_REFUSED = re.compile(
    r"from_file|save|_print|set|set_|set_data|_?(sparse_)?resize\w*|_sparse_\w+_unsafe|_nested_view_from_\w+|_test_\w+"
    r"|_?backward|retain_grad|record_stream|_copy_from_and_resize"
)
_OVERLOAD = re.compile(r"torch\.ops\.(aten|prims)\.(\w+)\.(\w+)")
_HIGHER_ORDER = re.compile(
    r"associative_scan|auto_functionalized|auto_functionalized_v2|checkpoint|cond|flex_attention|invoke_subgraph|map_impl|out_dtype|scan"
    r"|strict_mode|tag_activation_checkpoint|while_loop|wrap|wrap_with_autocast|wrap_with_set_grad_enabled"
)
PRIMITIVES = re.compile(
    r"NumToTensor|RaiseException|abs|data|device|dtype|grad|id|is_cpu|is_cuda|is_meta|is_mkldnn|is_mps|is_nested|is_quantized|is_sparse"
    r"|is_sparse_csr|is_xla|is_xpu|itemsize|layout|max|min|name|nbytes|rangelist|requires_grad|tolist|type|unchecked_cast"
    r"|unchecked_unwrap_optional"
)
"""Names under `ops.prim` that TorchScript may use."""


def is_allowed(target: str) -> bool:
    """Whether a graph may call the operator `target`, as an exported program writes it: "torch.ops.aten.relu.default"."""
    if target.startswith("torch.ops.higher_order."):
        return bool(_HIGHER_ORDER.fullmatch(target.rpartition(".")[2]))
    match = _OVERLOAD.fullmatch(target)
    if match is None:
        return False
    space, name, overload = match.groups()
    try:
        schema = torch._C._get_schema(f"{space}::{name}", "" if overload == "default" else overload)
    except RuntimeError:  # this torch has no such operator
        return False
    return _is_harmless(name, schema)


@cache
def refused_names() -> frozenset[str]:
    """Names of operators that TorchScript can call, as `torch.NAME` or as a method, with at least one refused overload."""
    reachable: Iterable[Any] = torch._C._jit_get_all_schemas()
    return frozenset(
        name for space, _, name, schema in ((*s.name.partition("::"), s) for s in reachable)
        if space == "aten" and not _is_harmless(name, schema)
    )  # fmt: skip


def _is_harmless(name: str, schema: Any) -> bool:
    return _REFUSED.fullmatch(name) is None and all(_is_plain(argument) for argument in schema.arguments)


def _is_plain(argument: Any) -> bool:
    words = re.findall(r"[\w.]+", str(argument.type))
    return all(map(_PLAIN.fullmatch, words)) and ("str" not in words or bool(_TEXTS.fullmatch(argument.name)))
