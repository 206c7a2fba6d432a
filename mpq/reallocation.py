"""Reallocation: training changes which layers are sensitive, so a trained model is scored anew and its bytes are allocated again.

Each layer in turn is quantized from its unquantized weight under each candidate, while all others stay as trained. The table of these
errors is solved at no more bytes than before. Layers whose scheme stays keep their trained values; the model is trained again from there.
The held-out samples decide between the two trained models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mpq.apply.artifact_writer import write_artifact
from mpq.apply.contents import checked_layers, contents_of, metric_of
from mpq.apply.sketches import sketches_for
from mpq.apply.train import Retrained, done, stored_state, train_artifact
from mpq.budget import Budget
from mpq.calibration.input_moments import statistics_for
from mpq.data.dataset import Data, Split
from mpq.evidence.prediction import rank_correlation
from mpq.formats.scheme import Scheme
from mpq.models.running.fake_quantized import Variants, as_parameters
from mpq.models.running.reference import Reference
from mpq.models.sources.loaded import LoadedModel
from mpq.records.artifact import ArtifactHeader
from mpq.records.artifact_files import read_header
from mpq.records.layer import Layer
from mpq.records.plan import Plan
from mpq.records.plan_sketches import as_in_artifact
from mpq.records.sensitivity import Sensitivity
from mpq.recovery.base import UNLIMITED, Decision, Progress, Proposal, State, Step, Task, gap_evidence
from mpq.recovery.held_out import decide
from mpq.recovery.run import Recovered
from mpq.recovery.training.run import Watch
from mpq.recovery.training.settings import TrainSettings
from mpq.search.run import search
from mpq.shown import counted
from mpq.tensors.quantizers.registry import quantizer_named

Scores = dict[tuple[str, Scheme], float]
"""Mean errors by layer and scheme."""


@dataclass(frozen=True)
class Reallocated:
    """What scoring a trained model anew led to.

    Args:
        plan: the new plan, with the error before and after in its evidence; None if the old one stays.
        decision: why.
        retrained: of the new plan; None if its schemes are the old ones.
        correlation: rank correlation of the errors that the layers add now with those of the analysis.
        changed: layers whose scheme would change.
    """

    plan: Plan | None
    decision: Decision
    retrained: Retrained | None
    correlation: float
    changed: tuple[str, ...]

    @property
    def line(self) -> str:
        """How much the sensitivities changed."""
        layers = counted(len(self.changed), "layer")
        return f"sensitivities measured again: rank correlation with the analysis {self.correlation:.2f}; {layers} would get another scheme"


class _Reallocation(Step):
    """Names the decision; the work is done by `reallocate`."""

    name = "reallocation"
    title = "Reallocation"

    def propose(self, task: Task, state: State) -> Proposal:
        """Nothing."""
        return Proposal("nothing to propose")


def reallocate(
    model: LoadedModel,
    plan: Plan,
    table: Sensitivity,
    artifact: Path,
    output: Path,
    *,
    data: Data,
    plan_data: Data,
    settings: TrainSettings,
    folder: Path,
    on_line: Watch | None = None,
    on_progress: Callable[[str], Progress] | None = None,
) -> Reallocated:
    """Score a trained artifact anew, allocate its bytes again, and train the result; it stays at `output` if held-out samples agree.

    Args:
        model: the unquantized model.
        plan: of the artifact.
        table: the analysis of the plan.
        artifact: that was trained.
        output: path of the new artifact.
        data: the samples to train on.
        plan_data: the data of the analysis; its calibration samples score, its held-out samples decide.
        settings: of the training.
        folder: for checkpoints, and for the artifact that the second training starts from.
        on_line: called with all lines of that training after each evaluation.
        on_progress: gives the progress callback of a step, by its name.

    Raises:
        MismatchError: if the artifact, the plan, the model and the data do not belong together.
    """
    header, split = read_header(artifact), plan_data.split_as(plan.data)
    plan = as_in_artifact(plan, header)
    layers = checked_layers(plan, model)
    state = stored_state(artifact, header, layers, model)
    task = _task(model, plan, layers, split)
    scores = scored(task, state, table, None if on_progress is None else on_progress("scoring"))
    new = replanned(plan, table, scores)
    changed = tuple(name for name, scheme in new.layers.items() if scheme != plan.layers[name])
    correlation = _correlation(table, scores)
    if not changed:
        same = Decision(_Reallocation.name, _Reallocation.title, kept=False, reason="not kept: the allocation is already the best one")
        return Reallocated(None, same, None, correlation, ())
    start, trained = folder / "reallocated.mpq.safetensors", folder / "trained.mpq.safetensors"
    _write(model, new, start, task, state, changed, header)
    made = train_artifact(
        model,
        new,
        start,
        trained,
        data=data,
        plan_data=plan_data,
        settings=settings,
        folder=folder,
        on_line=on_line,
        on_progress=on_progress,
    )
    best = made.path or start
    after = stored_state(best, read_header(best), layers, model)
    proposal = Proposal(
        f"for {counted(len(changed), 'layer')}", after.weights, after.tensors, {"layers": list(changed), "correlation": correlation}
    )
    seconds = sum(each.seconds or 0 for each in made.decisions)
    decision = decide(_Reallocation(), proposal, task, state, split.held_out, seconds=seconds)
    if decision.kept:  # an artifact that an earlier run left at `output` stays otherwise
        best.replace(output)
    for left in (start, trained):
        left.unlink(missing_ok=True)
    if not decision.kept:
        return Reallocated(None, decision, made, correlation, changed)
    evidence = new.evidence | {"recovery": {"artifact": output.name, **gap_evidence(decision, decision), "reallocated": len(changed)}}
    return Reallocated(replace(new, evidence=evidence), decision, made, correlation, changed)


def scored(task: Task, state: State, table: Sensitivity, report: Progress | None = None) -> Scores:
    """The error on the calibration samples with one layer after another requantized under each of its candidates.

    Args:
        task: with the calibration samples.
        state: of all other layers.
        table: says what the candidates are.
        report: called after each measurement.
    """
    reference, values, found = Reference(task.module, task.calibration, task.metric), state.values(task.layers), Scores()
    pairs = [(layer, scheme) for layer in task.layers for scheme in table.header.candidates[layer.name]]
    for number, (layer, scheme) in enumerate(pairs, start=1):
        weight = as_parameters({layer.name: task.variants.quantized(layer.name, scheme)}, [layer])
        found[layer.name, scheme] = float(reference.errors(values | weight).mean())
        if report is not None:
            report(number, len(pairs), f"{layer.name} {scheme}")
    return found


def replanned(plan: Plan, table: Sensitivity, scores: Scores) -> Plan:
    """The best plan by new scores, of no more bytes, with the pins and ties of the old one.

    Args:
        plan: the old one.
        table: its analysis.
        scores: mean errors by layer and scheme; what is above the least of each layer counts.
    """
    least = {layer.name: min(scores[layer.name, scheme] for scheme in table.header.candidates[layer.name]) for layer in table.layers}
    errors = {(name, scheme): np.array([error - least[name]]) for (name, scheme), error in scores.items()}
    anew = Sensitivity(table.header, errors, table.path, finish={"parts": table.header.data.get("parts")}, first_line=table.first_line)
    pins = {name: str(plan.layers[name]) for name in plan.pinned}
    kept: dict[str, Any] = {"trials": 0, "pins": pins, "ties": plan.ties, "rest": plan.rest.dtype, "sketches": plan.sketches is not None}
    found = search(anew, Budget(f"{plan.size.layer_bytes}B"), **kept).plan
    if found.size.file_bytes > plan.size.file_bytes:  # other schemes may take a longer header
        found = search(anew, Budget(f"{plan.size.file_bytes}B", "file"), **kept).plan
    told = {key: value for key, value in found.evidence.items() if key in ("assignment", "metric", "outputs")}
    return replace(
        found, sketches=plan.sketches, budget=plan.budget, evidence=told | {"decision": "scored anew after training"}, remarks={}
    )


def _task(model: LoadedModel, plan: Plan, layers: list[Layer], split: Split) -> Task:
    quantizer = quantizer_named(plan.quantizer)
    statistics = statistics_for(quantizer, model.module, layers, split.first)
    variants = Variants(model.module, layers, quantizer, statistics=statistics, cache_bytes=0)
    return Task(variants, split.calibration, metric_of(plan, model, split), int(plan.data["seed"]), UNLIMITED)


def _write(model: LoadedModel, plan: Plan, path: Path, task: Task, state: State, changed: tuple[str, ...], header: ArtifactHeader) -> None:
    """The artifact that training begins from: new codes where the scheme changes, the trained ones of the artifact elsewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: task.variants.quantized(name, plan.layers[name]) for name in changed}
    mixed = Recovered(state.changed(weights, {}), tuple(done(name) for name in header.recovery))
    sketches = sketches_for(plan, model.module, task.layers, mixed.state.values(task.layers), task.calibration)
    contents = contents_of(plan, model, task.layers, mixed, lambda name: state.weights[name], sketches)
    write_artifact(path, replace(contents, fingerprint=bool(header.digests)))


def _correlation(table: Sensitivity, scores: Scores) -> float:
    """Spearman's rank correlation of the errors that layers add, over all pairs of layer and scheme that the analysis measured."""
    pairs = [pair for pair in scores if pair in table.errors]
    return rank_correlation([table.mean(*pair) for pair in pairs], [scores[pair] for pair in pairs])
