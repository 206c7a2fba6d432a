"""Measures whole plans on the real model, for the search."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from inspect import GEN_SUSPENDED, getgeneratorstate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mpq.activations.equalized import equalized
from mpq.activations.errors import rounded_errors
from mpq.activations.rounding import changes_of, simulated
from mpq.calibration.input_moments import statistics_for
from mpq.data.dataset import Data
from mpq.errors import MismatchError, UsageError
from mpq.formats.scheme import Scheme
from mpq.gradients.slopes import slopes_at
from mpq.models.inputs.fit_to_model import refit_data
from mpq.models.layers.unquantized_tensors import rounded_tensors
from mpq.models.running.comparison import comparison_from
from mpq.models.running.fake_quantized import Progress, Variants
from mpq.models.running.known import opened, scope_for
from mpq.models.running.reference import Reference
from mpq.models.running.swap import swapped
from mpq.models.sources.load import from_module
from mpq.models.sources.loaded import LoadedModel
from mpq.records.activations import Groups
from mpq.records.sensitivity import Errors, Sensitivity
from mpq.records.slopes import Slopes
from mpq.shown import first_line
from mpq.tensors.quantizers.registry import quantizer_named


class PlanMeasurer:
    """The error of plans on calibration and on held-out samples, under the metric and quantizer of an analysis.

    Args:
        model: the model of the analysis; unchanged between measurements.
        data: all samples of the analysis: the result of `load_data`, or the same batches; they are split in the same way.
        table: the analysis.
        quantizer: used instead of the analysis's own.
        rest_dtype: "bf16", "fp16" or "fp32": dtype in which the plans store unquantized tensors; they are rounded in every measurement.
        cache: folder where the analysis kept codes and statistics; None computes them again.
        on_progress: called while weights are quantized that the analysis has not kept.

    Raises:
        MismatchError: if model or data are not those of the analysis.
        NumericsError: if `rest_dtype` cannot represent a value as a finite number.
    """

    def __init__(
        self,
        model: nn.Module | LoadedModel,
        data: Data | Iterable[Any],
        table: Sensitivity,
        *,
        quantizer: str | None = None,
        rest_dtype: str | None = None,
        cache: Path | str | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        loaded = model if isinstance(model, LoadedModel) else from_module(model)
        samples = refit_data(data, model=loaded, facts=table.header.data)
        for name, found, expected in (
            ("model", loaded.sha256, table.header.model["sha256"]),
            ("data", samples.sha256, table.header.data["sha256"]),
        ):
            if found != expected:
                raise MismatchError(f"the analysis was made with another {name} (sha256 {expected[:12]}…, this one has {found[:12]}…)")
        settings = table.header.settings
        split = samples.split_as(table.header.data)
        metric = comparison_from(settings)
        chosen = quantizer_named(quantizer or str(settings["quantizer"]))
        self._store = opened(cache)
        known = scope_for(self._store, loaded.sha256, split.first, table.header.equalization)
        statistics = statistics_for(chosen, loaded.module, table.layers, split.first, known=known)
        self._module, self.on_progress, self._equalization = loaded.module, on_progress, table.header.equalization
        self._parts: Generator[Tensor, None, None] | None = None  # of the latest measurement in parts
        self._variants = Variants(loaded.module, table.layers, chosen, statistics=statistics, codes=known)
        self._candidates = {name: table.header.candidates[name] for name in self._variants.layers}
        self._calibration = Reference(loaded.module, split.calibration, metric)
        self._held_out = Reference(loaded.module, split.held_out, metric)
        self.rest_dtype = rest_dtype or table.header.rest.dtype
        with self._equalized():
            self._rounded = rounded_tensors(loaded.module, table.layers, self.rest_dtype)

    @property
    def notes(self) -> list[str]:
        """What the user should know of the cache and of the work."""
        return [*self._store.notes, *self._variants.notes]

    def calibration(self, schemes: Mapping[str, Scheme]) -> Errors:
        """The error on each calibration sample."""
        return self._errors(self._calibration, schemes)

    def calibration_parts(self, schemes: Mapping[str, Scheme]) -> Iterator[Errors]:
        """The error on each calibration sample, batch by batch.

        The model has the plan's weights until the iterator is exhausted or closed.

        Raises:
            UsageError: if another such iterator is neither.
        """
        with self._equalized(), closing(self._calibration.parts(self._weights(schemes))) as self._parts:
            for errors in self._parts:
                yield errors.numpy()

    def held_out(self, schemes: Mapping[str, Scheme]) -> Errors:
        """The error on each held-out sample."""
        return self._errors(self._held_out, schemes)

    def held_out_rounded(self, schemes: Mapping[str, Scheme], groups: Groups) -> Errors:
        """The error on each held-out sample with tensors between layers rounded."""
        with self._equalized():
            errors: Errors = rounded_errors(self._held_out, changes_of(groups), self._weights(schemes)).numpy()
        return errors

    def slopes(self, schemes: Mapping[str, Scheme]) -> Slopes:
        """How each scheme of each layer would change the calibration error of a plan.

        Raises:
            ModelError: if the model or the metric gives no gradients; the message says why.
        """
        self._check_idle()
        with self._equalized():
            self._fill(self._candidates)
            return slopes_at(self._calibration, self._variants, schemes, self._candidates)

    def score(self, own: Callable[[nn.Module], Any], schemes: Mapping[str, Scheme], groups: Groups | None = None) -> Errors:
        """The user's metric of the model under `schemes`: one number, or one per sample. Without schemes, of the unquantized model.

        `groups` are tensors between layers that are rounded.

        Raises:
            UsageError: if `own` fails, or does not return finite numbers.
        """
        self._check_idle()
        try:
            with self._equalized():
                weights: Mapping[str, Tensor] = self._weights(schemes) if schemes else {}
                with swapped(self._module, weights), simulated(self._module, groups or {}), torch.no_grad():
                    value = own(self._module)
                found = value.detach().cpu().double().numpy() if isinstance(value, Tensor) else np.asarray(value, dtype=np.float64)
                values: Errors = found.reshape(-1)
        except Exception as error:  # user code may raise any error
            raise UsageError(f"the metric failed with {type(error).__name__}: {first_line(error)}") from error
        if not len(values) or not np.isfinite(values).all():
            shown = values[0] if len(values) == 1 else "nothing" if not len(values) else "values that are not all finite"
            raise UsageError(f"the metric returned {shown}: it must return a finite number, or one per sample")
        return values

    def _errors(self, reference: Reference, schemes: Mapping[str, Scheme]) -> Errors:
        with self._equalized():
            found: Errors = reference.errors(self._weights(schemes)).numpy()
        return found

    def _equalized(self) -> AbstractContextManager[None]:
        """The model with the channels of the analysis, within a `with`."""
        return equalized(self._module, self._equalization)

    def _weights(self, schemes: Mapping[str, Scheme]) -> Mapping[str, Tensor]:
        """All tensors that differ from the unquantized model's, which it must have now."""
        self._check_idle()
        self._fill({name: [scheme] for name, scheme in schemes.items()})
        return self._variants.weights(schemes, beside=self._rounded)

    def _check_idle(self) -> None:
        if self._parts is not None and getgeneratorstate(self._parts) == GEN_SUSPENDED:
            raise UsageError("a measurement in parts has not ended: exhaust or close its iterator before the next measurement")

    def _fill(self, schemes: Mapping[str, Iterable[Scheme]]) -> None:
        self._variants.fill(schemes, self.on_progress or (lambda *_: None))
