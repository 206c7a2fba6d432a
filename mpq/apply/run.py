"""Apply: a model and a plan become an artifact of exactly the size that the plan predicts.

Everything is decided first: weights are quantized, and the recovery steps run. Then the file is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mpq.activations.equalized import equalized
from mpq.apply.artifact_writer import check_folder, write_artifact
from mpq.apply.contents import checked_layers, contents_of, metric_of
from mpq.apply.memory import expected_memory
from mpq.apply.sketches import sketches_for
from mpq.calibration.input_moments import LIMIT_BYTES, Collected, statistics_for
from mpq.calibration.memory_parts import wide_lines
from mpq.config import TUNE_MINUTES, TUNE_WORK
from mpq.data.dataset import Data, Split
from mpq.errors import ApplyError, MismatchError, UsageError
from mpq.models.inputs.fit_to_model import refit_data
from mpq.models.layers.unquantized_tensors import rounded_tensors
from mpq.models.memory.peak import peak_memory, peak_text
from mpq.models.running.fake_quantized import Variants, on_disk
from mpq.models.running.known import opened, scope_for
from mpq.models.sources.load import from_module
from mpq.models.sources.loaded import LoadedModel
from mpq.progress import both, in_turn
from mpq.records.layer import Layer
from mpq.records.plan import Plan, read_plan
from mpq.records.plan_sketches import with_sketches
from mpq.records.stored_sketches import StoredSketches
from mpq.recovery.base import TERA, Decision, Limits, State, Task
from mpq.recovery.registry import STEPS
from mpq.recovery.run import Recovered, hindrances, recover, untried
from mpq.recovery.samples import recovery_samples
from mpq.recovery.tuning import Tuning
from mpq.shown import times_smaller
from mpq.tensors.fp16_range import fits_range
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.registry import quantizer_named

Progress = Callable[[int, int, str], None]
"""Called with (done, total, layer) after each layer."""


@dataclass(frozen=True, repr=False)
class Applied:
    """What was written.

    Args:
        path: the artifact.
        file_bytes: its size.
        original_bytes: bytes of all parameters and buffers of the original model.
        decisions: the decision about each recovery step, in order.
        fallbacks: why a layer was quantized without input statistics, by its name.
        unchanged: layers whose weights are exactly representable in their scheme, so that quantization changes nothing.
        remarks: what else the user should know, a line each.
    """

    path: Path
    file_bytes: int
    original_bytes: int
    decisions: tuple[Decision, ...]
    fallbacks: Mapping[str, str]
    unchanged: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        kept = ", ".join(each.name for each in self.decisions if each.kept) or "none"
        times = times_smaller(self.original_bytes, self.file_bytes)
        return f"<Applied: {self.path}, {self.file_bytes:,} bytes, {times}; recovery kept: {kept}>"

    @property
    def notes(self) -> list[str]:
        """Notes on the layers and the work, one line each."""
        lines = [f"'{name}' did not change: its weights are exactly representable in its scheme" for name in self.unchanged]
        return [*lines, *self.remarks]

    def decision(self, name: str) -> Decision:
        """The decision about one step."""
        return next(decision for decision in self.decisions if decision.name == name)


def apply(
    model: nn.Module | LoadedModel,
    plan: Plan | Path | str,
    output: Path | str,
    *,
    data: Data | Iterable[Any] | None = None,
    recovery: bool = True,
    sequential: bool = True,
    reconstruct: bool = True,
    tune: bool = True,
    own_text: int | None = None,
    tune_work: float = TUNE_WORK,
    tune_minutes: float = TUNE_MINUTES,
    allow_unchanged: bool = False,
    cache: Path | str | None = None,
    fingerprint: bool = True,
    sketches: bool | None = None,
    progress: bool = False,
    on_progress: Progress | None = None,
    on_recovery: Callable[[str], Progress] | None = None,
) -> Applied:
    """Write the artifact of `plan` to `output`; the model is unchanged.

    Args:
        model: the model that the plan was made for.
        plan: the plan or its file.
        output: path of the artifact, usually `*.mpq.safetensors`.
        data: all samples of the analysis, exactly as given to it. Quantizers that use statistics need them, and so does recovery.
        recovery: run the steps that recover quality at the same size; each is kept only if held-out samples agree. See `mpq/recovery`.
        sequential: False skips the step that quantizes each layer again for the inputs that it will get.
        reconstruct: False skips the training of each block in turn.
        tune: False skips the tuning of scales, codes, biases and norms.
        own_text: windows that a language model writes itself, which these steps use in addition to the calibration windows. By default,
            enough to reach 32,768 tokens, at most eight times as many as given.
        tune_work: operations allowed for each of these three steps, in teraflops; if that is too little, they use fewer passes and
            samples.
        tune_minutes: emergency stop for each of the three steps; if it stops a step, the result depends on the machine, and the artifact
            says so.
        allow_unchanged: do not report layers whose weights are exactly representable in their scheme.
        cache: folder where the analysis kept codes and statistics; None computes them again.
        fingerprint: put digests of the weights into spare space of the header, for `mpq verify`.
        sketches: put sketches of the calibration data into the header, for `mpq.monitor`: 360 bytes for each of up to twelve tensors, which
            the plan does not count unless it was searched with sketches. None does as the plan says.
        progress: show progress: a bar on a terminal, a line in a notebook.
        on_progress: called after each layer.
        on_recovery: gives the progress callback of each recovery step, by its name.

    Raises:
        UsageError: if `tune_work` or `tune_minutes` is not positive, or the model cannot write the text that is asked for.
        MismatchError: if the plan belongs to a different model, or its constant part does not match this one.
        ApplyError: if the plan is over its own budget, names unknown layers, gives a layer a scheme that cannot represent its weights, or
        needs data that is not given. OutputError: if the file cannot be written.
    """
    limits, path = _limits(tune_work, tune_minutes), Path(output)
    check_folder(path)
    loaded = model if isinstance(model, LoadedModel) else from_module(model)
    wanted = with_sketches(plan if isinstance(plan, Plan) else read_plan(Path(plan)), sketches)
    layers = checked_layers(wanted, loaded)
    split = _split_if_needed(wanted, loaded, data, recovery=recovery)
    quantizer = quantizer_named(wanted.quantizer)
    store = opened(cache, loaded.offload)
    known = scope_for(store, loaded.sha256, None if split is None else split.first, wanted.equalization)
    expected = 0 if split is None else expected_memory(loaded, layers, split.calibration, recovery=recovery)
    most = LIMIT_BYTES if loaded.offload is None else min(LIMIT_BYTES, loaded.offload.limit)
    statistics = (
        Collected() if split is None else statistics_for(quantizer, loaded.module, layers, split.first, limit_bytes=most, known=known)
    )
    variants = Variants(loaded.module, layers, quantizer, statistics=statistics, cache_bytes=0, codes=known, offload=loaded.offload)
    told = _told(on_progress, on_recovery, progress=progress)
    with equalized(loaded.module, wanted.equalization), told as (layer_done, step_done):
        source = _Weights(variants, wanted, on_progress=layer_done)
        on = {"sequential": sequential, "reconstruction": reconstruct, "tuning": tune}
        off = [step.name for step in STEPS if not recovery or not on.get(step.name, True)]
        remarks = list[str]()
        hindered = hindrances(loaded.module, None if split is None else split[:2], off) | _on_disk_only(loaded, off)
        if split is None or len(hindered) == len(STEPS):  # so that no quantized weight stays in memory
            recovered = Recovered(State({}), untried(hindered))
        else:
            metric, seed = metric_of(wanted, loaded, split), int(wanted.data["seed"])
            samples, remark = recovery_samples(loaded.module, layers, split.calibration, limits, windows=own_text, seed=seed)
            remarks += [] if remark is None else [remark]
            task = Task(variants, samples, metric, seed, limits, step_done, wanted.activations)
            rounded = rounded_tensors(loaded.module, layers, wanted.rest.dtype)
            recovered = recover(task, State(source.all(), rounded), split.held_out, hindered, rest_dtype=wanted.rest.dtype)
        stored = _sketches(wanted, loaded, layers, source, recovered.state, split)
        contents = replace(contents_of(wanted, loaded, layers, recovered, source.one, stored), fingerprint=fingerprint)
        write_artifact(path, contents)
    original = wanted.original_bytes + wanted.rest.original_bytes
    return Applied(
        path,
        contents.file_bytes,
        original,
        recovered.decisions,
        variants.fallbacks,
        () if allow_unchanged else tuple(source.unchanged),
        (*store.notes, *wide_lines(quantizer, layers), *remarks, *([peak_text(peak_memory(), expected)] if loaded.offload else [])),
    )


@contextmanager
def _told(
    own: Progress | None, own_steps: Callable[[str], Progress] | None, *, progress: bool
) -> Iterator[tuple[Progress | None, Callable[[str], Progress] | None]]:
    """The callbacks for layers and recovery steps: the caller's own, plus a progress display if wanted."""
    if not progress:
        yield own, own_steps
        return
    with in_turn() as stage:
        yield both(stage("apply"), own), lambda name: both(stage(name), None if own_steps is None else own_steps(name))


def _limits(work: float, minutes: float) -> Limits:
    if not work > 0:
        raise UsageError(f"{work:g} teraflops is not enough work to tune: give a positive number, or disable tuning")
    if not minutes > 0:
        raise UsageError(f"{minutes:g} minutes is not enough time to tune: give a positive number, or disable tuning")
    return Limits(TERA * work, minutes)


class _Weights:
    """The quantized weights of a plan, each checked as it is made."""

    def __init__(self, variants: Variants, plan: Plan, *, on_progress: Progress | None) -> None:
        self._variants, self._plan = variants, plan
        self._on_progress, self._done = on_progress, 0
        self.unchanged: dict[str, None] = {}

    def all(self) -> dict[str, QuantizedWeight]:
        """All of them, by layer name."""
        return {name: self.one(name) for name in self._variants.layers}

    def one(self, name: str) -> QuantizedWeight:
        """The weight of one layer."""
        scheme = self._plan.layers[name]
        weight = on_disk(self._variants.quantized(name, scheme), self._variants.offload)
        self._check(name, weight)
        self._done += 1
        if self._on_progress is not None:
            self._on_progress(self._done, len(self._variants.layers), name)
        return weight

    def values(self, state: State) -> Mapping[str, Tensor]:
        """All values that differ in the quantized model, by name in the state dict; weights that no recovery step has are made again."""
        missing = {
            name: self._variants.quantized(name, self._plan.layers[name]) for name in self._variants.layers if name not in state.weights
        }
        return state.changed(missing, {}).values(self._variants.layers.values(), self._variants.offload)

    def _check(self, name: str, weight: QuantizedWeight) -> None:
        """Refuse a weight that does not fit the range of fp16, and note one that quantization does not change."""
        matrix = self._variants.matrix(name)
        if not fits_range(matrix, weight.scheme):
            raise ApplyError(f"layer '{name}' at {weight.scheme}: its weights are too small for fp16; use bf16 or fp32 for it")
        if not weight.scheme.is_float and torch.equal(weight.dequantize().to(matrix.device), matrix):
            self.unchanged[name] = None


def _on_disk_only(model: LoadedModel, off: Iterable[str]) -> dict[str, str]:
    """Why steps are not tried on a model whose weights stay in files: those that are not listed go block by block."""
    return {} if model.offload is None or Tuning.name in off else {Tuning.name: "it needs all weights in memory: leave out --offload"}


def _sketches(
    plan: Plan, model: LoadedModel, layers: list[Layer], source: _Weights, state: State, split: Split | None
) -> StoredSketches | None:
    if split is None or plan.sketches is None:
        return None
    values = {**rounded_tensors(model.module, layers, plan.rest.dtype), **source.values(state)}
    return sketches_for(plan, model.module, layers, values, split.calibration)


def _split_if_needed(plan: Plan, model: LoadedModel, data: Data | Iterable[Any] | None, *, recovery: bool) -> Split | None:
    """The data that the plan was made with, if the quantizer or recovery needs it."""
    sketched = plan.sketches is not None
    if sketched and (data is None or not plan.data):
        raise ApplyError("sketches need the calibration data that the plan was made with: pass it as data, or leave sketches out")
    if sketched or quantizer_named(plan.quantizer).needs_statistics or (recovery and data is not None and plan.data):
        return split_of(plan, model, data)
    return None


def split_of(plan: Plan, model: LoadedModel, data: Data | Iterable[Any] | None) -> Split:
    """The data that the plan was made with, split in the same way."""
    if data is None:
        source = plan.data.get("source", "the data of the analysis")
        raise ApplyError(f"quantizer '{plan.quantizer}' needs the calibration data that the plan was made with ({source}): pass it as data")
    samples = refit_data(data, model=model, facts=plan.data)
    if samples.sha256 != plan.data.get("sha256"):
        expected = str(plan.data.get("sha256"))[:12]
        raise MismatchError(f"the plan was made with other calibration data (sha256 {expected}…, this has {samples.sha256[:12]}…)")
    return samples.split_as(plan.data)
