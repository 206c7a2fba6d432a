"""Measures whole plans on the real model, for the search."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from mpq.errors import MismatchError
from mpq.models.batches import Data
from mpq.models.load import from_module
from mpq.models.loaded import LoadedModel
from mpq.models.metrics import metric_named
from mpq.models.reference import Reference
from mpq.models.statistics import statistics_for
from mpq.models.variants import Variants
from mpq.records.sensitivity import Errors, Sensitivity
from mpq.schemes import Scheme
from mpq.tensors.quantizers.registry import quantizer_named


class PlanMeasurer:
    """The error of plans on calibration and on held-out samples, under the metric and quantizer of an analysis.

    Args:
        model: the model of the analysis; unchanged between measurements.
        data: all samples of the analysis; they are split as there.
        table: the analysis.

    Raises:
        MismatchError: if model or data are not those of the analysis.
    """

    def __init__(self, model: nn.Module | LoadedModel, data: Data, table: Sensitivity) -> None:
        loaded = model if isinstance(model, LoadedModel) else from_module(model)
        for name, found, expected in (
            ("model", loaded.sha256, table.header.model["sha256"]),
            ("data", data.sha256, table.header.data["sha256"]),
        ):
            if found != expected:
                raise MismatchError(f"the analysis was made with another {name} (sha256 {expected[:12]}…, this one has {found[:12]}…)")
        settings = table.header.settings
        calibration, held_out = data.split(float(table.header.data["held_out"]), int(table.header.data["seed"]))
        metric = metric_named(str(settings["metric"]), probabilities=bool(settings["probabilities"]))
        quantizer = quantizer_named(str(settings["quantizer"]))
        statistics = statistics_for(quantizer, loaded.module, table.layers, calibration)
        self._variants = Variants(loaded.module, table.layers, quantizer, statistics=statistics)
        self._calibration = Reference(loaded.module, calibration, metric)
        self._held_out = Reference(loaded.module, held_out, metric)

    def calibration(self, schemes: Mapping[str, Scheme]) -> Errors:
        """The error on each calibration sample."""
        return self._errors(self._calibration, schemes)

    def held_out(self, schemes: Mapping[str, Scheme]) -> Errors:
        """The error on each held-out sample."""
        return self._errors(self._held_out, schemes)

    def _errors(self, reference: Reference, schemes: Mapping[str, Scheme]) -> Errors:
        found: Errors = reference.errors(self._variants.weights(schemes)).numpy()
        return found
