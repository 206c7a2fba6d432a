"""Analysis: the error at the model's output when one layer is quantized with one scheme and everything else stays unquantized."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from torch import nn

from mpq.activations.equalized import equalized
from mpq.analyze.activations import analyze_activations, refuse_activations
from mpq.analyze.coverage import coverage_of
from mpq.analyze.large_errors import measure_large
from mpq.analyze.memory import activations_of, expected_memory, statistics_limit
from mpq.analyze.methods.base import Context, Progress
from mpq.analyze.methods.registry import method_named
from mpq.analyze.parts import layers_of_part, read_part
from mpq.analyze.prepare import prepare
from mpq.analyze.selfcheck import self_check
from mpq.analyze.task import Prepared
from mpq.analyze.together import begun
from mpq.analyze.unseen_rows import unseen_rows
from mpq.analyze.without_data import analyze_without_data
from mpq.calibration.input_moments import statistics_for
from mpq.choices import AnalysisChoices, spelled_out
from mpq.config import LARGE_MEMORY, AnalysisSettings, chosen_settings
from mpq.data.dataset import Data
from mpq.errors import UsageError
from mpq.evidence.rows_reached import reach_lines
from mpq.files import Journal
from mpq.formats.activations import CHOICES
from mpq.models.inputs.fit_to_model import fit_data
from mpq.models.memory.malloc_trim import return_large_blocks
from mpq.models.memory.peak import peak_memory
from mpq.models.memory.store import Store
from mpq.models.running.fake_quantized import Variants
from mpq.models.running.known import opened, scope_for
from mpq.models.running.quantize_processes import workers_of
from mpq.models.running.ranks import Alone, Ranks
from mpq.models.sources.load import from_module
from mpq.models.sources.loaded import LoadedModel
from mpq.progress import reported
from mpq.records.sensitivity import Sensitivity, read_sensitivity
from mpq.tensors.quantizers.registry import quantizer_named
from mpq.writing.locks import held
from mpq.writing.outputs import refuse_special

WORK = "analysis"  # its name in messages


@spelled_out(AnalysisSettings, AnalysisChoices)
def analyze(
    model: nn.Module | LoadedModel,
    data: Data | Iterable[Any] | None,
    *,
    settings: AnalysisSettings | None = None,
    output: Path | str | None = None,
    reading: dict[str, object] | None = None,
    seed_each_forward: bool = False,
    batch_axis: int | str | None = None,
    cache: Path | str | None = None,
    progress: bool = False,
    workers: int | str = 1,
    part: str | None = None,
    ranks: Ranks | None = None,
    tell: Callable[[str], None] | None = None,
    on_progress: Progress | None = None,
    **choices: Unpack[AnalysisChoices],
) -> Sensitivity:
    """Measure the sensitivity of every searched layer to every candidate scheme.

    Args:
        model: an `nn.Module` in eval mode, or the result of `load_model`. It is unchanged afterwards.
        data: the result of `load_data`, or batches as from a DataLoader; a share is held out for the search. Method "weight" also accepts
            None.
        output: file for the journal; an unfinished analysis found there is resumed.
        reading: how `data` was read, for the header.
        seed_each_forward: start every call of the model with the same random seed, if `data` is batches and the model draws random numbers.
        batch_axis: the axis of the inputs that counts samples, if `data` is batches; "none" makes each batch one sample.
        cache: folder that keeps codes and statistics for the search, `apply` and later analyses; None keeps them only for this analysis.
        progress: show progress: a bar on a terminal, a line in a notebook.
        workers: processes that quantize, or "auto"; the values are the same for any number. More than one needs a script that guards
            its main part with `if __name__ == "__main__"`.
        part: "1/2" analyzes the first of two parts of the layers, for `mpq merge`; the result is then unfinished.
        ranks: the processes that do this analysis together; each calls this function, only rank 0 gives `output`, and all use one `cache`
            folder. None: this process alone.
        tell: called before the first measurement with the expected peak memory, in words, if that is 2 GB or more or weights stay in files.
        on_progress: called after each measurement.
        settings: one object instead of the following keywords.
        **choices: see `AnalysisSettings`.

    Raises:
        ConfigError: if a keyword is unknown or has the wrong type, or settings and keywords are both given.
        HeldError: if another process is writing to `output`.
        UsageError: if `part` is not a part, or there are more parts than layers.
        MismatchError: if `output` has an analysis of a different model, data or settings.
        MpqError: any error of `prepare` or of measuring.
    """
    chosen, wanted = chosen_settings(AnalysisSettings, settings, choices), None if part is None else read_part(part)
    path = None if output is None else Path(output)
    if path is not None:
        refuse_special(path)
    loaded = model if isinstance(model, LoadedModel) else from_module(model)
    if data is not None and not isinstance(data, Data):
        data = fit_data(data, model=loaded, source="memory", seed_each_forward=seed_each_forward, batch_axis=batch_axis)
        chosen_so = {"batch_axis": None if batch_axis is None else str(batch_axis), "seed_each_forward": seed_each_forward}
        reading = {**(reading or {}), **{name: value for name, value in chosen_so.items() if value}}
    with held(path, work=WORK) if path is not None else nullcontext(), reported("analyze", wanted=progress, also=on_progress) as advance:
        return _analyze(
            loaded,
            data,
            chosen,
            path,
            reading,
            opened(cache, loaded.offload),
            str(workers),
            wanted,
            ranks or Alone(),
            tell or (lambda _: None),
            advance,
        )


def _analyze(
    loaded: LoadedModel,
    samples: Data | None,
    chosen: AnalysisSettings,
    path: Path | None,
    reading: dict[str, object] | None,
    store: Store,
    workers: str,
    part: tuple[int, int] | None,
    ranks: Ranks,
    tell: Callable[[str], None],
    on_progress: Progress,
) -> Sensitivity:
    lacking = "samples" if samples is None else "weights in memory: leave out --offload" if loaded.offload is not None else None
    lacking = "one process: measure the layers first, then run it again alone" if lacking is None and (part or ranks.size > 1) else lacking
    if lacking is not None:
        refuse_activations(chosen, lacking)
    if samples is None and part is not None:
        raise UsageError("--part divides measuring on data: an analysis without data takes seconds, so leave it out")
    if samples is None:
        return analyze_without_data(loaded, chosen, output=path, path=_place(loaded, path), on_progress=on_progress)
    earlier = read_sensitivity(path).header if path is not None and path.exists() else None
    settle = partial(
        prepare,
        loaded,
        samples,
        chosen,
        path=_place(loaded, path),
        reading=reading,
        earlier=earlier,
        store=store,
        workers=workers,
        on_progress=on_progress,
    )
    prepared, table, journal = begun(ranks, loaded, samples, path, settle)
    rounding = [CHOICES[each] for each in chosen.activations]
    if table.finished and set(rounding) <= set((table.finish or {}).get("activations", {}).get("schemes", ())):
        return table
    with equalized(loaded.module, prepared.header.equalization):
        return _measured(loaded, prepared, table, journal, rounding, store, workers, part, ranks, tell, on_progress)


def _measured(
    loaded: LoadedModel,
    prepared: Prepared,
    table: Sensitivity,
    journal: Journal | None,
    rounding: list[str],
    store: Store,
    workers: str,
    part: tuple[int, int] | None,
    ranks: Ranks,
    tell: Callable[[str], None],
    on_progress: Progress,
) -> Sensitivity:
    """The table with all that was missing in it."""
    own = None if part is None else frozenset(layer.name for layer in layers_of_part(table.layers, table.header.candidates, part))
    quantizer = quantizer_named(str(prepared.header.settings["quantizer"]))
    known = scope_for(store, loaded.sha256, prepared.first, prepared.header.equalization)
    processes = workers_of(workers, sum(layer.weights * len(table.header.candidates[layer.name]) for layer in table.layers))
    limit = statistics_limit(loaded)
    gradients = prepared.header.settings["method"] == "fisher"
    passes = activations_of(loaded, prepared, gradients=gradients)
    statistics = statistics_for(quantizer, loaded.module, table.layers, prepared.first, limit_bytes=limit, known=known, together=own or ())
    context = Context(
        model=loaded,
        prepared=prepared,
        table=table,
        variants=Variants(
            loaded.module,
            table.layers,
            quantizer,
            statistics=statistics,
            offload=loaded.offload,
            codes=known,
            workers=processes,
            ranks=ranks,
        ),
        save=(lambda _: None) if journal is None else (lambda records: journal.append(*records)),
        on_progress=on_progress,
        part=own,
        ranks=ranks,
        blocks=passes.blocks,
    )
    expected = expected_memory(loaded, prepared, passes, gradients=gradients, statistics=quantizer.needs_statistics)
    if loaded.offload is not None or expected.total >= LARGE_MEMORY:
        return_large_blocks()
        if ranks.leads:
            tell(expected.line)
    with closing(journal) if journal is not None else nullcontext():
        began = time.monotonic()
        method_named(str(prepared.header.settings["method"])).run(context)
        if own is not None:
            return table
        if gradients:
            measure_large(context)
        context.cost["method_seconds"] = time.monotonic() - began
        unseen = unseen_rows(context) if loaded.offload is None else {}
        context.notes += [*reach_lines({"unseen_rows": unseen}), *context.variants.notes, *store.notes]
        check = self_check(context)
        if ranks.size == 1:
            rounding = list(dict.fromkeys([*rounding, *(scheme for _, scheme in table.activations)]))
        activations = {"activations": analyze_activations(context, rounding)} if rounding else {}
        notes = {"notes": context.notes} if context.notes else {}
        context.cost |= ranks.sums({name: value for name, value in context.cost.items() if name.endswith("_passes")})
        context.cost |= {"expected_memory_bytes": expected.total, "peak_memory_bytes": peak_memory()} | (
            {"ranks": ranks.size} if ranks.size > 1 else {}
        )
        cost = {name: round(value, 2) for name, value in context.cost.items()} | {"seconds": round(time.monotonic() - began, 1)}
        without = {"fallbacks": dict(context.variants.fallbacks)} if context.variants.fallbacks else {}
        parts = {name: value for name, value in table.header.data.items() if name == "parts"}
        tables = {"unseen_rows": unseen} if unseen else {}
        coverage = coverage_of(loaded, prepared).to_dict()
        context.record(
            [{"finish": {"cost": cost, "check": check, "coverage": coverage, **tables, **without, **notes, **parts, **activations}}]
        )
    return table


def _place(model: LoadedModel, output: Path | None) -> str | None:
    """How to find the model again: its name and commit on the hub, or its path relative to the folder of the output."""
    if model.hub is not None or model.path is None:
        return model.hub
    folder = Path.cwd() if output is None else output.parent
    return Path(os.path.relpath(model.path.resolve(), folder.resolve())).as_posix()
