"""ACT: nearest codes under the scales that minimize the squared error weighted by the energy of each column's inputs.

If inputs are uncorrelated, the output error of a row is the sum over columns of (error * input)^2, so each column is weighted by the mean
square of its inputs. Compare the importance matrix of llama.cpp's quantizers and, for the choice of clipping by output error, AWQ (Lin et
al. 2023).
"""

from __future__ import annotations

from torch import Tensor

from mpq.formats.scheme import Scheme
from mpq.tensors.hessian import importance_of
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.base import Quantizer, Statistics, nearest
from mpq.tensors.scales import Scales, best_scales, grouped

_DAMP_PERCENT = 0.01


class ActivationEnergy(Quantizer):
    """Nearest codes under the best clipping by activation-weighted error."""

    name = "act"
    needs_statistics = True

    def round(self, matrix: Tensor, scheme: Scheme, statistics: Statistics | None) -> QuantizedWeight:
        """Quantize to a scheme of integers or levels."""
        assert statistics is not None
        return nearest(matrix, scheme, energy_scales(matrix, scheme, statistics.hessian))


def energy_scales(matrix: Tensor, scheme: Scheme, hessian: Tensor) -> Scales:
    """The scales with the smallest error weighted by the energy of the inputs."""
    energy = importance_of(hessian, _DAMP_PERCENT)
    if energy.shape[0] > 1:
        energy = energy.repeat_interleave(matrix.shape[0] // energy.shape[0], dim=0)
    return best_scales(grouped(matrix, scheme), scheme, grouped(energy, scheme))
