"""Contexts as `mpq analyze` makes them for a method, with a list in the place of the journal."""

from collections.abc import Callable
from typing import Any

from torch import nn

from mpq.analyze.methods.base import Context
from mpq.analyze.prepare import prepare
from mpq.calibration.input_moments import statistics_for
from mpq.config import AnalysisSettings
from mpq.data.dataset import Data
from mpq.models.running.fake_quantized import Variants
from mpq.models.sources.load import from_module
from mpq.records.sensitivity import Sensitivity
from mpq.tensors.quantizers.registry import quantizer_named


def context_of(
    module: nn.Module,
    data: Data,
    saved: list[dict[str, Any]],
    *,
    on_progress: Callable[[int, int, str], None] = lambda *_: None,
    **choices: Any,
) -> Context:
    """What a method gets; every record that it saves is added to `saved`."""
    loaded = from_module(module)
    prepared = prepare(loaded, data, AnalysisSettings(**{"quantizer": "rtn", "candidates": ("2", "8"), "method": "measure"} | choices))
    table = Sensitivity(prepared.header)
    quantizer = quantizer_named(str(prepared.header.settings["quantizer"]))
    statistics = statistics_for(quantizer, module, table.layers, prepared.first)
    variants = Variants(module, table.layers, quantizer, statistics=statistics)
    return Context(loaded, prepared, table, variants, saved.extend, on_progress)
