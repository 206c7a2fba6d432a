"""What a quantized model takes in memory once it is loaded, told from its plan or from the header of its file. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from mpq.schemes import Scheme, table_layout

Form = Literal["dense", "packed"]
FORMS: tuple[Form, ...] = ("dense", "packed")


def loaded_bytes(
    schemes: Mapping[str, Scheme],
    matrices: Mapping[str, tuple[int, int]],
    *,
    original_bytes: int,
    rest_bytes: int,
    form: Form = "dense",
) -> int:
    """Bytes of the parameters and buffers of the module that `mpq.load` returns.

    Every tensor of the state dict counts once, however many names it has. What else a process takes does not count: activations, caches,
    buffers outside the state dict, the code, and the graph of an exported program.

    Args:
        schemes: scheme by layer name.
        matrices: (rows, columns) by layer name.
        original_bytes: bytes of the layers in the dtype of the model.
        rest_bytes: bytes of all other parameters and buffers, which keep their dtype.
        form: "dense", what `mpq.load(path)` gives: layers as ordinary tensors in the dtype of the model, whatever their scheme; "packed",
            what `mpq.load(path, packed=True)` gives on a CPU whose fast kernels serve: codes widened to 2, 4 or 8 bits, with their scales
            and zero points. Where those kernels do not serve, packed layers take their size in the file, which is less but for padding.
    """
    if form == "dense":
        return original_bytes + rest_bytes
    return sum(_packed(scheme, matrices[name]) for name, scheme in schemes.items()) + rest_bytes


def _packed(scheme: Scheme, matrix: tuple[int, int]) -> int:
    """Bytes of a layer in memory; the tables are those of `tensors/kernels/bags.py`."""
    if not scheme.is_integer and scheme.format not in ("int1", "ternary"):
        return replace(scheme, small_scales=False).stored_bits(matrix) // 8  # scales of 8 bits become fp16
    rows, columns = matrix
    table = table_layout(scheme, matrix)
    blocks, per_group = -(-rows // table.block), 2 if scheme.symmetric else 3
    return blocks * (columns * table.line_bytes + scheme.groups(columns) * table.block * per_group)
