"""MSE: nearest codes under the scales that minimize the squared error of the weights; see `tensors/scales.py`."""

from __future__ import annotations

from torch import Tensor

from mpq.formats.scheme import Scheme
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.base import Quantizer, Statistics, nearest
from mpq.tensors.scales import best_scales, grouped


class WeightError(Quantizer):
    """Nearest codes under the best clipping by weight error; needs no data."""

    name = "mse"

    def round(self, matrix: Tensor, scheme: Scheme, statistics: Statistics | None) -> QuantizedWeight:
        """Quantize to a scheme of integers or levels."""
        return nearest(matrix, scheme, best_scales(grouped(matrix, scheme), scheme))
