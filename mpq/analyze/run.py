"""Analysis: the error at the model's output when one layer takes one scheme and everything else stays at reference."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mpq.analyze.prepare import Prepared, prepare
from mpq.analyze.resume import open_journal
from mpq.config import AnalysisSettings, settings_from
from mpq.models.batches import Data
from mpq.models.fit import fit_data
from mpq.models.load import from_module
from mpq.models.loaded import LoadedModel
from mpq.models.reference import Reference
from mpq.models.variants import Variants
from mpq.records.sensitivity import Sensitivity
from mpq.tensors.quantizers.registry import quantizer_named

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what was done) after each measurement."""


def analyze(
    model: nn.Module | LoadedModel,
    data: Data | Iterable[Any],
    *,
    settings: AnalysisSettings | None = None,
    output: Path | str | None = None,
    reading: dict[str, object] | None = None,
    on_progress: Progress | None = None,
    **choices: Any,
) -> Sensitivity:
    """The sensitivity of every searched layer to every candidate scheme.

    Args:
        model: an `nn.Module` in eval mode, or what `load_model` gave. It is unchanged afterwards.
        data: what `load_data` gave, or batches as from a DataLoader; a share is held out for the search.
        settings: the choices as one object; without it
        **choices: its fields one by one, for example candidates=("2..8", "16"), metric="relative_mse", quantizer="rtn".
        output: file to keep as the journal; an unfinished analysis found there is resumed.
        reading: how `data` was read, kept in the header.
        on_progress: told after each measurement.

    Raises:
        MismatchError: if `output` holds an analysis of another model, other data or other settings.
        MpqError: whatever `prepare` and measuring may raise.
    """
    chosen = settings or settings_from(AnalysisSettings, choices)
    loaded = model if isinstance(model, LoadedModel) else from_module(model)
    samples = data if isinstance(data, Data) else fit_data(data, model=loaded, source="memory")
    quantizer_named(chosen.quantizer)
    path = None if output is None else Path(output)
    prepared = prepare(loaded, samples, chosen, path=_relative(loaded.path, path), reading=reading)
    table, journal = open_journal(prepared.header, path)
    missing = table.missing
    if missing:
        measure(loaded, prepared, table, record=None if journal is None else journal.append, on_progress=on_progress)
    if journal is not None:
        journal.close()
    return table


def measure(
    model: LoadedModel,
    prepared: Prepared,
    table: Sensitivity,
    *,
    record: Callable[[dict[str, Any]], None] | None,
    on_progress: Progress | None,
) -> None:
    """Measure what `table` misses, one layer and one scheme at a time; adds to `table` in place, recording each first."""
    reference = Reference(model.module, prepared.calibration, prepared.metric)
    variants = Variants(model.module, table.layers, quantizer_named(str(prepared.header.settings["quantizer"])), cache_bytes=0)
    missing = table.missing
    for done, (layer, scheme) in enumerate(missing, start=1):
        errors = reference.errors(variants.weights({layer.name: scheme}))
        values = _finite(errors)
        if record is not None:
            record({"layer": layer.name, "scheme": str(scheme), "first": 0, "errors": values})
        table.add(layer.name, scheme, values)
        if on_progress is not None:
            on_progress(done, len(missing), f"{layer.name} {scheme}")


def _finite(errors: Tensor) -> list[float | None]:
    return [value if value == value else None for value in errors.tolist()]


def _relative(model: Path | None, output: Path | None) -> str | None:
    if model is None:
        return None
    folder = Path.cwd() if output is None else output.parent
    return Path(os.path.relpath(model.resolve(), folder.resolve())).as_posix()
