"""The memory that a loaded quantized model takes, computed from its plan or its header. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from mpq.formats.packed_layout import packed_bytes
from mpq.formats.scheme import Scheme

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

    Every tensor of the state dict counts once, however many names it has. Other memory does not count: activations, caches,
    buffers outside the state dict, the code, and the graph of an exported program.

    Args:
        schemes: scheme by layer name.
        matrices: (rows, columns) by layer name.
        original_bytes: bytes of the layers in the dtype of the model.
        rest_bytes: bytes of all other parameters and buffers, which keep their dtype.
        form: "dense", what `mpq.load(path)` gives: layers as ordinary tensors in the dtype of the model, whatever their scheme; "packed",
            what `mpq.load(path, packed=True)` gives on a CPU that has the fast kernels: codes widened to 2, 4 or 8 bits, with their scales
            and zero points. Without those kernels, packed layers take their size in the file, which is less except for padding.
    """
    if form == "dense":
        return original_bytes + rest_bytes
    return sum(packed_bytes(scheme, matrices[name]) for name, scheme in schemes.items()) + rest_bytes
