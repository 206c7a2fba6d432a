"""RTN: round to nearest, with scales that cover the whole range of each group."""

from __future__ import annotations

from torch import Tensor

from mpq.formats.scheme import Scheme
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.base import Quantizer, Statistics, nearest
from mpq.tensors.scales import grouped, minmax_scales


class RoundToNearest(Quantizer):
    """Nearest codes under min-max scales; needs no data."""

    name = "rtn"

    def round(self, matrix: Tensor, scheme: Scheme, statistics: Statistics | None) -> QuantizedWeight:
        """Quantize to a scheme of integers or levels."""
        return nearest(matrix, scheme, minmax_scales(grouped(matrix, scheme), scheme))
