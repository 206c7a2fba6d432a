"""Recover: trains an artifact without changing its size; if held-out samples agree, the result is written as a new artifact."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpq.activations.equalized import equalized
from mpq.apply.artifact_writer import check_folder, write_artifact
from mpq.apply.contents import checked_layers, contents_of, metric_of
from mpq.apply.sketches import sketches_for
from mpq.calibration.input_moments import Collected
from mpq.data.dataset import Data
from mpq.data.hashing import tensor_bytes
from mpq.data.overlap import shared_samples
from mpq.errors import ApplyError, DataError, FormatError, MismatchError, UsageError
from mpq.models.layers.unquantized_tensors import rest_tensors
from mpq.models.running.fake_quantized import Variants, on_disk
from mpq.models.sources.loaded import LoadedModel
from mpq.records.artifact import ArtifactHeader
from mpq.records.artifact_files import artifact_files, read_header
from mpq.records.artifact_plans import is_plan_of
from mpq.records.layer import Layer
from mpq.records.open_artifact import opened, parts_in
from mpq.records.plan import Plan
from mpq.records.plan_sketches import as_in_artifact
from mpq.recovery.base import UNLIMITED, Decision, Limits, Progress, State, Task, gap_evidence
from mpq.recovery.run import Recovered, hindrances, recover
from mpq.recovery.training.blocks_first import BlocksFirst
from mpq.recovery.training.checkpoints import Checkpoints
from mpq.recovery.training.labels import check_labels
from mpq.recovery.training.memory import check_memory
from mpq.recovery.training.run import Watch
from mpq.recovery.training.settings import TrainSettings
from mpq.recovery.training.step import Training
from mpq.tensors.quantized import unpack_weight
from mpq.tensors.quantizers.registry import quantizer_named


@dataclass(frozen=True)
class Retrained:
    """The result of training.

    Args:
        path: the new artifact; None if held-out samples did not agree, and nothing was written.
        file_bytes: its size.
        decisions: on each step, in order, the training end to end last.
        checkpoints: of the run; `finish` removes them.
    """

    path: Path | None
    file_bytes: int
    decisions: tuple[Decision, ...]
    checkpoints: Checkpoints | None = None

    def finish(self) -> None:
        """Remove the checkpoints: all that follows from the run is written. Until then a killed command resumes from the last of them."""
        if self.checkpoints is not None:
            self.checkpoints.remove()

    @property
    def evidence(self) -> dict[str, Any]:
        """For the plan: the errors on held-out samples before and after, and the share of the gap to the original that was recovered."""
        kept = [made for made in self.decisions if made.kept]
        gap = gap_evidence(kept[0], kept[-1]) if kept else {}
        if not gap:
            return {}
        seconds = round(sum(float(made.details.get("seconds", made.seconds or 0)) for made in self.decisions), 1)
        return {**gap, "seconds": seconds, "samples": max(int(made.details.get("samples", 0)) for made in kept)}


def train_artifact(
    model: LoadedModel,
    plan: Plan,
    artifact: Path,
    output: Path,
    *,
    data: Data,
    plan_data: Data,
    settings: TrainSettings,
    folder: Path | None = None,
    on_line: Watch | None = None,
    on_progress: Callable[[str], Progress] | None = None,
) -> Retrained:
    """Train the values that an artifact stores, and write the result to `output` if the plan's held-out samples agree.

    Args:
        model: the unquantized model.
        plan: the plan of the artifact.
        artifact: the artifact to start from.
        output: path of the new artifact.
        data: the samples to train on.
        plan_data: the data of the analysis, whose held-out part decides.
        settings: how to train; the seed is the plan's.
        folder: folder of the checkpoints, from which a killed run resumes. The caller ends with `finish` of what is returned.
        on_line: called with all lines after each evaluation.
        on_progress: gives the progress callback of a step, by its name.

    Raises:
        MismatchError: if the artifact, the plan, the model and the data do not belong together.
        DataError: if held-out samples are among the training samples, or labels are wanted that the samples do not have, or memory is too
            small.
        ApplyError: if training is not possible for this model; the message says why.
        UsageError: if its weights stay in files and it is to be trained end to end.
    """
    check_folder(output)
    if settings.end_to_end and model.offload is not None:
        raise UsageError("training end to end needs all weights in memory: train block by block alone, or leave out --offload")
    with equalized(model.module, plan.equalization):
        return _train(model, plan, artifact, output, data, plan_data, settings, folder, on_line, on_progress)


def _train(
    model: LoadedModel,
    plan: Plan,
    artifact: Path,
    output: Path,
    data: Data,
    plan_data: Data,
    settings: TrainSettings,
    folder: Path | None,
    on_line: Watch | None,
    on_progress: Callable[[str], Progress] | None,
) -> Retrained:
    header = header_under(plan, artifact)
    plan = replace(as_in_artifact(plan, header), activations=header.activations)  # whose ranges may have been trained
    layers = checked_layers(plan, model)
    split = plan_data.split_as(plan.data)
    _check_apart(split.held_out, data)
    metric = metric_of(plan, model, split)
    if settings.labels:
        check_labels(model.module, data, metric)
    state = stored_state(artifact, header, layers, model)
    if settings.end_to_end:
        check_memory(state, settings.codes)
    quantizer, offload = quantizer_named(plan.quantizer), model.offload
    variants = Variants(model.module, layers, quantizer, statistics=Collected(), cache_bytes=0, offload=offload)
    task = Task(variants, data, metric, int(plan.data["seed"]), UNLIMITED, on_progress, plan.activations)
    found, checkpoints = _trained(task, state, split.held_out, settings, plan=plan, folder=folder, on_line=on_line)
    last = found.decisions[-1]
    if last.before is None and not last.details:
        raise ApplyError(last.reason.removeprefix("skipped: "))
    if not found.kept:
        return Retrained(None, 0, found.decisions, checkpoints)
    earlier = [name for name in header.recovery if name not in found.kept]
    whole = Recovered(found.state, tuple(done(name) for name in earlier) + found.decisions)
    plan = replace(plan, activations=task.groups(whole.state))
    sketches = sketches_for(plan, model.module, layers, whole.state.values(layers, offload), split.calibration)
    contents = replace(contents_of(plan, model, layers, whole, _missing, sketches), fingerprint=bool(header.digests))
    write_artifact(output, contents)
    return Retrained(output, contents.file_bytes, found.decisions, checkpoints)


def _trained(
    task: Task, state: State, held_out: Data, settings: TrainSettings, *, plan: Plan, folder: Path | None, on_line: Watch | None
) -> tuple[Recovered, Checkpoints | None]:
    """What block reconstruction, if it is wanted, and then training end to end make of a state."""

    def checkpoints(place: Path | None, begun: State) -> Checkpoints | None:
        return None if place is None else Checkpoints(place, _key(plan, begun, task.calibration, settings))

    first, left, note = Recovered(state, ()), settings, ""
    if settings.by_blocks:
        codes = "integers" if settings.end_to_end else settings.codes
        blocks = BlocksFirst(checkpoints(None if folder is None else folder / "blocks", state), codes)
        hindered = hindrances(task.module, (task.calibration, held_out), steps=(blocks,))
        limited = task if settings.minutes is None else replace(task, limits=Limits(math.inf, settings.minutes / 2, "half of --minutes"))
        first = recover(limited, state, held_out, hindered, steps=(blocks,), rest_dtype=plan.rest.dtype)
        made_first = first.decisions[0]
        left, note = settings.after(made_first.details.get("seconds", 0)), replace(made_first, seconds=None).line  # the same in every run
    made = checkpoints(folder, first.state)
    if not settings.end_to_end:
        return first, made
    step = Training(left, made, on_line, note)
    last = recover(task, first.state, held_out, {}, steps=(step,), rest_dtype=plan.rest.dtype)
    return Recovered(last.state, first.decisions + last.decisions), made


def header_under(plan: Plan, artifact: Path) -> ArtifactHeader:
    """The header of an artifact of this plan.

    Raises:
        MismatchError: if it was made from another one.
    """
    header = read_header(artifact)
    if not is_plan_of(plan, header):
        raise MismatchError(f"{artifact} was not made from this plan: run `mpq apply` on it, or name the plan of this artifact")
    return header


def stored_state(artifact: Path, header: ArtifactHeader, layers: list[Layer], model: LoadedModel) -> State:
    """The weights that an artifact stores, and those of its other tensors that differ from the model's.

    Raises:
        FormatError: if a tensor is missing or has a different shape.
    """
    with opened(artifact_files(artifact)) as file:
        weights = {
            layer.name: on_disk(unpack_weight(parts_in(file, layer, scheme), scheme, layer.matrix), model.offload)
            for layer, scheme in ((layer, header.schemes[layer.name]) for layer in layers)
        }
        tensors: dict[str, Tensor] = {}
        held = set(file.keys())
        for name, original in rest_tensors(model, layers).items():
            if name not in held:
                raise FormatError(f"{artifact} lacks '{name}': run `mpq apply` again")
            stored = file.get_tensor(name)
            if stored.is_floating_point() and original.is_floating_point():
                stored = stored.to(original.dtype)  # it may be stored in a smaller dtype
            if stored.dtype == original.dtype and stored.shape == original.shape and not torch.equal(stored, original):
                tensors[name] = stored
    return State(weights, tensors)


def _check_apart(held_out: Data, data: Data) -> None:
    shared = shared_samples(held_out, data)
    if shared:
        raise DataError(
            f"{data.source}: {shared} of the {held_out.samples} held-out samples of the plan are among the training samples, so they "
            "cannot decide: give other data"
        )


def _key(plan: Plan, state: State, data: Data, settings: TrainSettings) -> str:
    """A digest of everything that a run depends on."""
    sizes = [batch.size for batch in data.batches]
    facts = [plan.assignment, plan.model.get("sha256"), data.sha256, sizes, settings.to_dict(), plan.data.get("seed")]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for name, weight in sorted(state.weights.items()):
        parts = (weight.codes, *(() if weight.scales is None else (weight.scales,)))
        digest.update(b"".join([name.encode(), *(tensor_bytes(part).tobytes() for part in parts)]))
    for name, tensor in sorted(state.tensors.items()):
        digest.update(b"".join([name.encode(), tensor_bytes(tensor).tobytes()]))
    return digest.hexdigest()


def done(name: str) -> Decision:
    """A step that an artifact holds already."""
    return Decision(name, name, kept=True, reason="")


def _missing(name: str) -> Any:
    raise ApplyError(f"'{name}' is missing from what was trained: this is a bug in mpq, please report it")
