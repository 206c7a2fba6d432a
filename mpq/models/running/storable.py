"""Which schemes can store the weights of a layer: those whose range and tables have room for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from mpq.errors import SchemeError
from mpq.formats.scheme import Scheme
from mpq.models.running.swap import tensor_of
from mpq.records.layer import Layer
from mpq.shown import counted, listed
from mpq.tensors.common_rows import common_rows, merged
from mpq.tensors.fp16_range import fits_range, lost_rows
from mpq.tensors.matrix import to_matrix
from mpq.tensors.quantizers.coded import check_room, least_rate

_NAMED = 5  # schemes, and layers, in a line


def storable_candidates(
    module: nn.Module, layers: Iterable[Layer], candidates: Mapping[str, Sequence[Scheme]]
) -> tuple[dict[str, tuple[Scheme, ...]], list[str]]:
    """The candidates of each layer, or its 16-bit format if none is left, and lines about the dropped candidates.

    Candidates are dropped if the weights do not fit the range of fp16, or if the tables of a coded format need more bytes than the layer
    has. A candidate that only loses a few small rows is kept, also with a line. Rows that are one common row count once.
    """
    kept, lines, small = {}, [], dict[str, list[str]]()
    for layer in layers:
        matrix = _stored_matrix(module, layer)
        spacious = tuple(scheme for scheme in candidates[layer.name] if not scheme.is_coded or _has_room(matrix, scheme))
        fitting = tuple(scheme for scheme in spacious if fits_range(matrix, scheme))
        kept[layer.name] = fitting or (Scheme(sixteen_bits(module, layer)),)
        stays = "" if fitting else f"; it stays at {kept[layer.name][0]}"
        dropped = [scheme for scheme in candidates[layer.name] if scheme not in spacious]
        if dropped:
            small.setdefault(_span(dropped), []).append(f"{layer.name} ({_room(matrix)}{stays})")
        lost = ", ".join(str(scheme) for scheme in spacious if scheme not in fitting)
        if lost:
            side = "large" if bool(matrix.abs().max() > 1) else "small"
            lines.append(f"left out for '{layer.name}', whose weights are too {side} for fp16: {lost}{stays}")
        lines += _lines_of_lost_rows(layer, matrix, kept[layer.name])
    return kept, [*_lines_of_small_layers(small), *lines]


def _stored_matrix(module: nn.Module, layer: Layer) -> Tensor:
    """The weight as a matrix, with the rows that a file holds."""
    matrix = to_matrix(tensor_of(module, layer.parameters[0]).detach(), layer.axes, layer.groups)
    common = common_rows(matrix) if layer.alike else None
    return matrix if common is None else merged(matrix, common)


def _span(schemes: Sequence[Scheme]) -> str:
    """Names of schemes, by increasing size; of many, the first and the last one."""
    return ", ".join(map(str, schemes)) if len(schemes) <= _NAMED else f"{schemes[0]} to {schemes[-1]}"


def _room(matrix: Tensor) -> str:
    """The number of weights, and the least rate of a coded format for them, if there is one."""
    rate = least_rate(matrix)
    return counted(matrix.numel(), "weight") + ("" if rate is None else f", at least ec{rate:g}")


def _lines_of_small_layers(small: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each set of coded formats that layers are too small for."""
    return [
        f"{schemes} left out for {counted(len(layers), 'layer')} with too few weights for the code tables: {listed(layers, _NAMED)}"
        for schemes, layers in small.items()
    ]


def _lines_of_lost_rows(layer: Layer, matrix: Tensor, schemes: Iterable[Scheme]) -> list[str]:
    """At most one line: how many rows of a layer are too small for fp16, by scheme."""
    counts = {str(scheme): lost_rows(matrix, scheme) for scheme in schemes}
    named = ", ".join(f"{count:,} at {scheme}" for scheme, count in counts.items() if count)
    return [f"of the {layer.matrix[0]:,} rows of '{layer.name}', some are too small for fp16 and are lost: {named}"] if named else []


def _has_room(matrix: Tensor, scheme: Scheme) -> bool:
    try:
        check_room(matrix, scheme)
    except SchemeError:
        return False
    return True


def sixteen_bits(module: nn.Module, layer: Layer) -> str:
    """The 16-bit format of a layer: its own dtype if it has 16 bits; for fp32 fp16, or bf16 if fp16's range loses more."""
    if layer.dtype == "bfloat16":
        return "bf16"
    if layer.dtype == "float16":
        return "fp16"
    weight = tensor_of(module, layer.parameters[0]).detach()
    return "fp16" if fits_range(weight.reshape(1, -1), Scheme("fp16")) else "bf16"
