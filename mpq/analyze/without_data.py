"""An analysis without any data: relative weight errors of the layers found by module class.

The model is not run, so nothing is known about its outputs: the values compare formats and give all layers the same importance.
"""

from __future__ import annotations

import platform
from contextlib import closing, nullcontext
from pathlib import Path

import torch

from mpq.analyze.candidates import candidates_for, expand
from mpq.analyze.choose_layers import chosen_layers, tied_notes
from mpq.analyze.choose_quantizer import CONTENDERS
from mpq.analyze.methods.base import Progress
from mpq.analyze.methods.weight import WeightOnly, weigh
from mpq.analyze.resume import open_journal
from mpq.config import AnalysisSettings
from mpq.distribution import VERSION
from mpq.errors import UsageError
from mpq.models.layers.assume import assume
from mpq.models.layers.shared_rows import with_shared_rows
from mpq.models.layers.unquantized_tensors import inventory, rest_options, source_of
from mpq.models.running.fake_quantized import Variants
from mpq.models.running.storable import sixteen_bits, storable_candidates
from mpq.models.sources.loaded import LoadedModel
from mpq.records.sensitivity import Sensitivity
from mpq.records.sensitivity_header import SensitivityHeader
from mpq.tensors.quantizers.registry import quantizer_named

METRIC = "weight_error"
_ASSUMED = "no data: every weight of two or more dimensions counts as used, and its output axis is the one its module class defines"
_MEANING = "metric weight_error: |W - Q|^2 / |W|^2 of each layer; it compares formats but says nothing about the model's outputs"


def analyze_without_data(
    model: LoadedModel, settings: AnalysisSettings, *, output: Path | None, path: str | None, on_progress: Progress
) -> Sensitivity:
    """Compute the relative weight error of every layer under every candidate.

    Args:
        model: the unquantized model; it is not run.
        settings: the user's settings.
        output: the journal; None writes none.
        path: the model's path, relative to the folder of the sensitivity file.
        on_progress: called after each value.

    Raises:
        UsageError: if a setting needs data.
        MpqError: like `prepare`.
    """
    header = _header(model, settings, path)
    table, journal = open_journal(header, output)
    if table.finished:
        return table
    variants = Variants(model.module, table.layers, quantizer_named(str(header.settings["quantizer"])), offload=model.offload)
    with closing(journal) if journal is not None else nullcontext():

        def record(line: dict[str, object]) -> None:
            if journal is not None:
                journal.append(line)
            table.read(line)

        weigh(table, variants, 1.0, record, on_progress)
        record({"finish": {"cost": {}}})
    return table


def _header(model: LoadedModel, settings: AnalysisSettings, path: str | None) -> SensitivityHeader:
    wanted = expand(settings.candidates)
    quantizer = _quantizer(settings)
    discovery = assume(model.module)
    layers, shared = with_shared_rows(model.module, chosen_layers(discovery, settings))
    offered = {layer.name: candidates_for(layer, wanted, lambda one: sixteen_bits(model.module, one)) for layer in layers}
    candidates, too_large = storable_candidates(model.module, layers, offered)
    source = source_of(model, path)
    return SensitivityHeader(
        model=source,
        data={},
        settings={"metric": METRIC, "probabilities": False, "method": WeightOnly.name, "quantizer": quantizer}
        | ({"alike": {layer.name: layer.alike for layer in layers if layer.alike}} if shared else {}),
        layers=tuple(layers),
        candidates=candidates,
        rest=inventory(model, layers, source=source, quantizer=quantizer),
        rest_as=rest_options(model, layers, source=source, quantizer=quantizer),
        notes=(_ASSUMED, _MEANING, *shared.values(), *tied_notes(discovery, settings), *too_large),
        versions={"mpq": VERSION, "torch": torch.__version__, "python": platform.python_version()},
    )


def _quantizer(settings: AnalysisSettings) -> str:
    """The quantizer, after checking that no setting needs data."""
    if settings.method != WeightOnly.name:
        raise UsageError(f"--method {settings.method} needs data: give --calib FILE, or --method {WeightOnly.name}, which needs none")
    if settings.metric not in ("auto", METRIC) or settings.outputs:
        raise UsageError(f"--metric and --outputs need data: give --calib FILE; without data, the metric is {METRIC}")
    if settings.quantizer == "auto":
        return CONTENDERS[0]
    if quantizer_named(settings.quantizer).needs_statistics:
        raise UsageError(f"--quantizer {settings.quantizer} needs data: give --calib FILE, or --quantizer {CONTENDERS[0]}")
    return settings.quantizer
