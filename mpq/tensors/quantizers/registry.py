"""Quantizers by name."""

from __future__ import annotations

from mpq.errors import UsageError
from mpq.tensors.quantizers.act import ActivationEnergy
from mpq.tensors.quantizers.base import Quantizer
from mpq.tensors.quantizers.gptq import GPTQ, Descent
from mpq.tensors.quantizers.hqq import HalfQuadratic
from mpq.tensors.quantizers.mse import WeightError
from mpq.tensors.quantizers.rtn import RoundToNearest

_KINDS: tuple[type[Quantizer], ...] = (RoundToNearest, WeightError, HalfQuadratic, ActivationEnergy, GPTQ, Descent)
QUANTIZERS = {kind.name: kind for kind in _KINDS}


def quantizer_named(name: str) -> Quantizer:
    """The quantizer called `name`.

    Raises:
        UsageError: if there is none; the message lists them.
    """
    if name not in QUANTIZERS:
        raise UsageError(f"'{name}' is not a quantizer: use one of {', '.join(QUANTIZERS)}")
    return QUANTIZERS[name]()
