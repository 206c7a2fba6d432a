"""Adds drifted samples to the calibration data, analyzes the model on both, and searches the budget of a plan again."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mpq.analyze.run import analyze
from mpq.config import AnalysisSettings, SearchSettings
from mpq.data.dataset import Data
from mpq.data.tensors_only import HoldsCodeError, load_tensors, reason_of
from mpq.errors import FormatError, UsageError
from mpq.evaluate.plan_measurer import PlanMeasurer
from mpq.files import atomic_write, open_file
from mpq.formats.activations import ALL, CHOICES, OFF
from mpq.models.running.forward import inputs_of
from mpq.models.running.metric_registry import METRICS
from mpq.models.sources.loaded import LoadedModel
from mpq.records.monitor_log import read_last, samples_path
from mpq.records.plan import Plan
from mpq.records.sensitivity import Sensitivity
from mpq.search.result import SearchResult
from mpq.search.run import search
from mpq.search.storage import open_storage

_AGAIN = "watch the model again with keep="


def kept_samples(log: Path) -> list[Any]:
    """The inputs of calls that the last line of a log kept.

    Raises:
        UsageError: if it kept none.
        FormatError: if their file is missing, damaged, or holds code.
    """
    line, path = read_last(log), samples_path(log)
    if not line.kept:
        raise UsageError(f"{log} has no samples: watch the model with `mpq.monitor(…, keep=64)`, then append to the log again")
    try:
        with open_file(path) as file:
            found = load_tensors(file)
    except HoldsCodeError as error:
        raise FormatError(f"{path} holds pickled Python objects ({error}), which run code when loaded: {_AGAIN}") from error
    except Exception as error:  # torch has many
        raise FormatError(f"cannot read {path}, the samples of {log.name} ({_reason(error)}): {_AGAIN}") from error
    if not isinstance(found, list) or len(found) != line.kept:
        raise FormatError(f"{path} does not have the {line.kept} samples of the last line of {log.name}: {_AGAIN}")
    return found


def write_joined(module: nn.Module, data: Data, kept: list[Any], path: Path) -> None:
    """Write the inputs of the calibration data and of the kept calls to a file for `mpq analyze --calib`; labels are left out.

    Args:
        module: the model, which names inputs that the data only has by position, if it has others by name.
        data: of the analysis.
        kept: inputs of calls.
        path: of the file.

    Raises:
        UsageError: if the module does not name them.
        OutputError: if it cannot be written.
    """
    buffer = io.BytesIO()
    torch.save([*_contents(module, data), *kept], buffer)
    with atomic_write(path) as file:
        file.write(buffer.getvalue())


def recalibrate(
    model: LoadedModel,
    data: Data,
    table: Sensitivity,
    plan: Plan,
    *,
    output: Path,
    reading: dict[str, object],
    trials: int | None = None,
    progress: bool = False,
) -> SearchResult:
    """The best plan within the budget of `plan` on other data, with the settings of the analysis behind it.

    Args:
        model: the unquantized model.
        data: calibration data with drifted samples.
        table: the analysis of the plan.
        plan: its budget, pins and ties are kept, and it competes if plans are measured. Tensors between layers become integers if some are
            in it.
        output: path of the new analysis.
        reading: how the data was read.
        trials: number of plans to measure; None uses the default.
        progress: show the progress of both stages.

    Raises:
        UsageError: if the plan has no budget.
        MpqError: any error of the two stages.
    """
    if plan.budget is None:
        raise UsageError("the plan has no budget to search again: make one with `mpq search --budget`")
    found = analyze(model, data, settings=settings_of(table), output=output, reading=reading, progress=progress)
    pins, groups = {name: plan.layers[name] for name in plan.pinned}, ALL if plan.activations else OFF
    chosen = SearchSettings(pins=pins, ties=plan.ties, start=plan.layers, activations=groups)
    if trials is not None:
        chosen = replace(chosen, trials=trials)
    if chosen.trials == 0:
        return search(found, plan.budget, settings=chosen)
    stored = replace(chosen, storage=open_storage(None, beside=output))
    return search(found, plan.budget, measurer=PlanMeasurer(model, data, found), settings=stored, progress=progress)


def settings_of(table: Sensitivity) -> AnalysisSettings:
    """The settings that repeat an analysis, on its own layers, schemes, quantizer, method, outputs and formats of activations."""
    header, rounded = table.header, (table.finish or {}).get("activations", {}).get("schemes", ())
    schemes = dict.fromkeys(str(scheme) for each in header.candidates.values() for scheme in each)
    metric = str(header.settings["metric"])
    outputs = [each for each in header.settings.get("outputs") or () if each.get("weight", 1.0) > 0]
    return AnalysisSettings(
        candidates=tuple(schemes),
        targets=tuple(layer.name for layer in header.layers),
        metric=metric if metric in METRICS else "auto",
        outputs=tuple(f"{each['output']}={each.get('weight', 1.0):g}" for each in outputs) if len(outputs) > 1 else (),
        quantizer=str(header.settings["quantizer"]),
        method=str(header.settings["method"]),
        held_out=float(header.data.get("held_out", AnalysisSettings().held_out)),
        seed=int(header.data.get("seed", 0)),
        activations=tuple(name for name, scheme in CHOICES.items() if scheme in rounded),
    )


def _reason(error: Exception) -> str:
    return error.strerror or "" if isinstance(error, OSError) else reason_of(error)


def _contents(module: nn.Module, data: Data) -> Iterator[Any]:
    for batch in data.batches:
        inputs = inputs_of(module, batch.args, batch.kwargs)
        if inputs is None:
            raise UsageError(f"{data.source} has inputs by position and by name, and `forward` does not name them all: give all by name")
        yield inputs[0] if isinstance(inputs, tuple) and len(inputs) == 1 else inputs
