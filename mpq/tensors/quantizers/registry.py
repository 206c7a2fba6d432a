"""Quantizers by name. No torch: a quantizer's file is imported when the quantizer is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpq.registry import Registry

if TYPE_CHECKING:
    from mpq.tensors.quantizers.base import Quantizer

QUANTIZERS: Registry[Quantizer] = Registry(
    "quantizer",
    {
        "rtn": ("mpq.tensors.quantizers.rtn:RoundToNearest", "round to nearest under min-max scales"),
        "mse": ("mpq.tensors.quantizers.mse:WeightError", "clipping with the smallest squared weight error"),
        "hqq": ("mpq.tensors.quantizers.hqq:HalfQuadratic", "half-quadratic scales that tolerate errors in outliers"),
        "act": ("mpq.tensors.quantizers.act:ActivationEnergy", "weight errors weighted by the energy of the inputs"),
        "gptq": ("mpq.tensors.quantizers.gptq:GPTQ", "column by column, each error compensated in later columns"),
        "descent": ("mpq.tensors.quantizers.gptq:Descent", "gptq, then coordinate descent over codes and scales"),
    },
)


def quantizer_named(name: str) -> Quantizer:
    """The quantizer called `name`.

    Raises:
        UsageError: if there is none; the message lists them.
    """
    return QUANTIZERS.kind(name)()
