"""All four stages in one call: analyze, search, apply and check, each with its defaults. All files are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from mpq.analyze.run import analyze
from mpq.apply.run import Applied, apply
from mpq.budget import Budget, Scope
from mpq.check.run import Check, check_file, own_budget
from mpq.config import AnalysisSettings, SearchSettings
from mpq.data.dataset import Data
from mpq.errors import OutputError
from mpq.evaluate.plan_measurer import PlanMeasurer
from mpq.files import relative_source
from mpq.models.inputs.fit_to_model import fit_data
from mpq.models.inputs.load_data import load_data
from mpq.models.sources.load import from_module, load_model
from mpq.models.sources.loaded import LoadedModel
from mpq.records.plan import Plan, write_plan
from mpq.records.sensitivity import Sensitivity
from mpq.search.result import SearchResult
from mpq.search.run import problem_for, search
from mpq.search.storage import open_storage
from mpq.shown import bits_text


@dataclass(frozen=True, repr=False)
class Compressed:
    """The results of `compress`.

    Args:
        sensitivity: the analysis; `sensitivity.path` is its file.
        found: the plan, and how it was found.
        plan_path: the file of the plan.
        applied: the artifact, and the recovery decisions.
        checks: whether plan and artifact are within the budget.
    """

    sensitivity: Sensitivity
    found: SearchResult
    plan_path: Path
    applied: Applied
    checks: tuple[Check, ...]

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self.found.plan

    @property
    def path(self) -> Path:
        """The artifact, for `mpq.load`."""
        return self.applied.path

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)

    def __repr__(self) -> str:
        kept = "within" if self.passed else "OVER"
        return f"<Compressed: {self.path}, {self.applied.file_bytes:,} bytes; {repr(self.plan)[1:-1]}; {kept} budget>"

    def _repr_html_(self) -> str:
        """For notebooks: the search's result."""
        return self.found._repr_html_()


def compress(
    model: nn.Module | LoadedModel | Path | str,
    data: Data | Iterable[Any] | Path | str,
    budget: Budget | str,
    *,
    output: Path | str = ".",
    scope: Scope = "layers",
    analysis: AnalysisSettings | None = None,
    searching: SearchSettings | None = None,
    progress: bool = False,
    on_stage: Callable[[str], None] = print,
) -> Compressed:
    """Make a model smaller in one call: analyze, search, apply and check.

    The model is unchanged. If called again, it resumes; a finished analysis is reused, also for a different budget.

    Args:
        model: an `nn.Module` in eval mode, the result of `load_model`, or a model file.
        data: batches as from a DataLoader, the result of `load_data`, or a data file.
        budget: for example "4.5bits", "12MB", "30%".
        output: folder for the files NAME.sensitivity.jsonl, plan.yaml and NAME.mpq.safetensors; created if needed. NAME is that of the
            model's file, or "model".
        scope: what the budget counts, "layers" or "file".
        analysis: settings of the analysis; None uses the defaults.
        searching: settings of the search; None uses the defaults.
        progress: show the progress of each stage: a bar on a terminal, a line in a notebook.
        on_stage: called after each stage with one line on what it did.

    Raises:
        MismatchError: if the folder has an analysis of a different model, data or settings.
        BudgetError: if no plan meets the budget; the message gives the smallest and the largest.
        MpqError: any error of the stages.
    """
    wanted, chosen = budget if isinstance(budget, Budget) else Budget(budget, scope), searching or SearchSettings()
    folder, loaded = _made(Path(output)), _loaded(model)
    samples = _read(data, loaded)
    stem = "model" if loaded.path is None else loaded.path.name if loaded.path.is_dir() else loaded.path.stem
    source, plan, artifact = (folder / name for name in (f"{stem}.sensitivity.jsonl", "plan.yaml", f"{stem}.mpq.safetensors"))
    reading: dict[str, object] = {"source": relative_source(samples.source, folder)}
    table = analyze(loaded, samples, settings=analysis, output=source, reading=reading, progress=progress)
    on_stage(f"analyze: wrote {source}: {len(table.layers):,} layers, {len(table.errors):,} values, {table.metric}")
    found = _searched(loaded, samples, table, wanted, chosen, progress=progress)
    write_plan(found.plan, plan)
    on_stage(f"search: wrote {plan}: {bits_text(found.plan.size.effective_bits)} bits per weight over the layers; chosen: {found.reason}")
    applied = apply(loaded, found.plan, artifact, data=samples, progress=progress)
    on_stage(f"apply: wrote {repr(applied)[len('<Applied: ') : -1]}")
    checks = (*own_budget(found.plan), *check_file(applied.path))
    for check in checks:
        on_stage(f"check: {'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.message}")
    return Compressed(table, found, plan, applied, checks)


def _searched(
    model: LoadedModel, data: Data, table: Sensitivity, budget: Budget, settings: SearchSettings, *, progress: bool
) -> SearchResult:
    """The search, with its journal next to the analysis; limits that cannot be met are refused before anything is opened."""
    problem_for(table, budget, settings)
    if settings.trials == 0:
        return search(table, budget, settings=settings)
    assert table.path is not None
    stored = replace(settings, storage=settings.storage or open_storage(None, beside=table.path))
    return search(table, budget, measurer=PlanMeasurer(model, data, table), settings=stored, progress=progress)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}; choose another folder with output=") from error
    return folder


def _loaded(model: nn.Module | LoadedModel | Path | str) -> LoadedModel:
    if isinstance(model, (str, Path)):
        return load_model(model)
    return model if isinstance(model, LoadedModel) else from_module(model)


def _read(data: Data | Iterable[Any] | Path | str, model: LoadedModel) -> Data:
    if isinstance(data, (str, Path)):
        return load_data(str(data), model=model)
    return data if isinstance(data, Data) else fit_data(data, model=model, source="memory")
