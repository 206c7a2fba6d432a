"""The running model of an artifact of any kind, and inputs to trace it with."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import nn

from mpq.activations.rounding import simulate
from mpq.config import data_settings
from mpq.data.dataset import Batch
from mpq.errors import ModelError
from mpq.export.abilities import ExportError
from mpq.export.base import Options
from mpq.export.source import Source
from mpq.files import exists
from mpq.models.inputs.load_data import load_data
from mpq.models.sources.hub import fetch
from mpq.models.sources.load import load_named
from mpq.models.sources.loaded import LoadedModel
from mpq.records.artifact_plans import data_file, plans_beside
from mpq.records.hub_name import hub_name
from mpq.records.plan import Plan, read_plan
from mpq.records.stands_alone import stands_alone
from mpq.runtime.load import load


def original_path(source: Source, options: Options) -> Path | None:
    """The path of the original model, as given or from the artifact; None if it does not exist."""
    if options.model is not None:
        return options.model
    path = source.model.get("path")
    name = hub_name(path)
    if name is not None:
        with suppress(ModelError):  # it cannot be downloaded now
            return fetch(name, trust=options.trust).folder
        return None
    found = [place for place in (source.path.parent / str(path), Path(str(path))) if exists(place)]
    return found[0] if path is not None and found else None


def quantized_module(source: Source, options: Options) -> nn.Module:
    """The module of an artifact with its quantized weights, and all tensors between layers in floating point.

    Raises:
        ExportError: if the artifact has only weights and the original model is missing.
        TrustError: if the artifact names a factory, the user names none, and does not trust it.
    """
    if stands_alone(source.artifact, source.path):
        return load(source.path, activations=False)
    path = original_path(source, options)
    if path is None:
        raise ExportError(
            f"{source.path} holds weights only, and its model {source.model.get('path')} was not found: name it with --reference"
        )
    original = load_named(path, source.model, source.path, factory=options.factory, trust=options.trust).module
    return load(source.path, original, activations=False)


def simulated_module(source: Source, options: Options) -> nn.Module:
    """The same with the tensors between layers rounded that the export computes as integers."""
    return simulate(quantized_module(source, options), source.activations)


def sample(module: nn.Module, source: Source, options: Options) -> Batch:
    """Two samples of the inputs in --data, else of the data that the artifact's plan names.

    Raises:
        ExportError: if there is neither.
    """
    found = (options.data, {}) if options.data is not None else _planned(source, options)
    if found is None:
        raise ExportError(f"a {source.kind} model has no example inputs to trace it with: add --data FILE; two samples are enough")
    given, facts = found
    loaded = LoadedModel(module, source.kind, str(source.model.get("sha256")))
    settings = replace(data_settings(facts), num_samples=2, batch_size=2)
    return load_data(given, model=loaded, **asdict(settings)).batches[0]


def _planned(source: Source, options: Options) -> tuple[str, dict[str, Any]] | None:
    """The data of the plan, and how it is read; code that the plan names is not called."""
    plans = [(options.plan, read_plan(options.plan))] if options.plan is not None else _beside(source)
    found = ((data_file(plan.data, file), plan.data) for file, plan in plans)
    return next(((given, facts) for given, facts in found if given is not None), None)


def _beside(source: Source) -> list[tuple[Path, Plan]]:
    return [] if source.header is None else list(plans_beside(source.path, source.header))
