"""What a layer is, as plain data: the facts that every stage needs and that outlive the model in memory. No torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from mpq.formats.matrix import matrix_of


@dataclass(frozen=True)
class Layer:
    """One searched weight.

    Args:
        name: name in plans and patterns: the parameter's name without a trailing ".weight".
        parameters: every name of this storage in the module; ties have several, the first one is canonical.
        shape: shape of the parameter.
        axes: the output axes; they become the rows of the matrix, all other axes its columns.
        dtype: "float32", "float16" or "bfloat16".
        operator: what consumes it: "linear", "conv", "embedding", "recurrent", "matmul" or "other".
        consumers: names of the modules in which it is consumed (empty for a module that is a single graph).
        groups: equal parts of axis 0, each with its own outputs (grouped transposed convolutions); multiplies the number of rows.
        alike: rows of a table that are one common row, which files hold once (`tensors/common_rows.py`); zero if there are none.
    """

    name: str
    parameters: tuple[str, ...]
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    dtype: str
    operator: str = "other"
    consumers: tuple[str, ...] = ()
    groups: int = 1
    alike: int = 0

    @property
    def weights(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def matrix(self) -> tuple[int, int]:
        """Rows (output channels) and columns (what one output sums over)."""
        rows = self.groups * math.prod(self.shape[axis] for axis in self.axes)
        return matrix_of(rows, self.weights // rows, self.alike)

    @property
    def original_bytes(self) -> int:
        """Bytes before quantization."""
        return self.weights * (4 if self.dtype == "float32" else 2)

    def to_dict(self) -> dict[str, Any]:
        """A JSON object of its facts; the groups only where there are several, the number of rows alike only where there are some."""
        facts = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        left_out = {*(() if self.groups > 1 else ("groups",)), *(() if self.alike else ("alike",))}
        return {key: value for key, value in facts.items() if key not in left_out}
