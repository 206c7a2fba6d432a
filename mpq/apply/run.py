"""Apply: a model and a plan become an artifact whose size is the plan's, to the byte."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mpq.apply.amend import Amended, Wanted, amend, untouched
from mpq.apply.correct import Correction, metric_on
from mpq.apply.layers import plan_layers
from mpq.apply.requantize import Requantization
from mpq.apply.tune import Tuning
from mpq.apply.write import write_artifact
from mpq.config import TUNE_MINUTES
from mpq.errors import ApplyError, MismatchError, UsageError
from mpq.models.batches import Data, Split
from mpq.models.corrections import correctable
from mpq.models.fit import fit_data
from mpq.models.inventory import inventory, rest_tensors, tensor_entry
from mpq.models.load import from_module
from mpq.models.loaded import LoadedModel
from mpq.models.state import aliases_of, state_of
from mpq.models.statistics import Collected, statistics_for
from mpq.models.swap import tensor_of
from mpq.models.variants import Variants
from mpq.records.artifact import ArtifactHeader
from mpq.records.layer import Layer
from mpq.records.plan import Plan, read_plan
from mpq.records.plan_budget import check_plan_budget
from mpq.tensors.matrix import to_matrix
from mpq.tensors.quantized import QuantizedWeight, unpack_weight
from mpq.tensors.quantizers.registry import quantizer_named

Progress = Callable[[int, int, str], None]
"""Called with (done, total, layer) after each layer."""


@dataclass(frozen=True)
class Applied:
    """What was written.

    Args:
        path: the artifact.
        file_bytes: its size.
        original_bytes: bytes of all parameters and buffers before.
        requantization: what was decided about quantizing one layer after another.
        correction: what was decided about biases and batch-norm statistics.
        tuning: what was decided about scales, codes and vectors after that.
        fallbacks: why a layer was quantized without statistics of its inputs, by its name.
    """

    path: Path
    file_bytes: int
    original_bytes: int
    requantization: Requantization
    correction: Correction
    tuning: Tuning
    fallbacks: Mapping[str, str]


def apply(
    model: nn.Module | LoadedModel,
    plan: Plan | Path | str,
    output: Path | str,
    *,
    data: Data | Iterable[Any] | None = None,
    corrections: bool = True,
    sequential: bool = True,
    tune: bool = True,
    tune_minutes: float = TUNE_MINUTES,
    allow_unchanged: bool = False,
    on_progress: Progress | None = None,
    on_sequence: Progress | None = None,
    on_tuning: Progress | None = None,
) -> Applied:
    """Write the artifact of `plan` to `output`; the model is unchanged.

    Args:
        model: the model that the plan was made for.
        plan: the plan or its file.
        output: path of the artifact, usually `*.mpq.safetensors`.
        data: all samples of the analysis, as they were given to it: a quantizer that needs statistics cannot do without, and
            corrections are found and judged on them.
        corrections: correct biases and batch-norm statistics where held-out samples say that it helps; see `models/corrections.py`.
            False leaves out all that follows, too.
        sequential: quantize each layer once more, for the inputs that the quantized layers before it give, where held-out samples say
            that it helps; see `models/sequence.py`.
        tune: tune scales, codes and vectors where held-out samples say that it helps; see `models/tuning.py`.
        tune_minutes: time allowed for tuning, and as much for quantizing one layer after another.
        allow_unchanged: accept layers whose weights already lie on the grid of their scheme.
        on_progress: told after each layer.
        on_sequence: told after each set of layers that is quantized once more.
        on_tuning: told after each step of tuning.

    Raises:
        UsageError: if `tune_minutes` is not positive.
        MismatchError: if the plan belongs to another model, or its constant part does not fit this one.
        ApplyError: if the plan is over its own budget, names unknown layers, leaves a layer as it was, or needs data that is not given.
    """
    if not tune_minutes > 0:
        raise UsageError(f"{tune_minutes:g} minutes is no time to tune: give a positive number, or do without tuning")
    loaded = model if isinstance(model, LoadedModel) else from_module(model)
    wanted = plan if isinstance(plan, Plan) else read_plan(Path(plan))
    quantizer = quantizer_named(wanted.quantizer)
    layers = plan_layers(wanted, loaded)
    rest = inventory(loaded, layers, source=wanted.model, quantizer=wanted.quantizer)
    if rest != wanted.rest:
        raise MismatchError(
            f"the plan's 'rest' says {wanted.rest.data_bytes} bytes of data and {wanted.rest.header_bytes} of header, this model has "
            f"{rest.data_bytes} and {rest.header_bytes}: analyze and search again with these versions of mpq and torch"
        )
    check_plan_budget(wanted)
    facts = ArtifactHeader(
        wanted.model, wanted.quantizer, tuple(layers), wanted.layers, aliases_of(state_of(loaded.module)), loaded.config or {}
    )
    tensors = rest_tensors(loaded, layers)
    split = _split(wanted, loaded, data) if quantizer.needs_statistics or (corrections and data is not None and wanted.data) else None
    statistics = Collected() if split is None else statistics_for(quantizer, loaded.module, layers, split.first)
    variants = Variants(loaded.module, layers, quantizer, statistics=statistics, cache_bytes=0)
    steps = Wanted(sequential, tune, tune_minutes)
    anything = sequential or tune or (split is not None and correctable(loaded.module, split.calibration))
    keep = corrections and split is not None and anything  # else no quantized weight is kept
    packer = _Packer(variants, wanted, layers, allow_unchanged=allow_unchanged, on_progress=on_progress, keep=keep)
    amended = untouched(steps, asked=corrections, judged=split is not None)

    def finished() -> tuple[ArtifactHeader, Mapping[str, Tensor]]:
        nonlocal amended
        if keep and split is not None:
            metric = metric_on(loaded.module, split.held_out, wanted.evidence.get("metric"))
            seed = int(wanted.data["seed"])
            amended = amend(variants, packer.kept, split[:2], metric, steps, seed=seed, on_sequence=on_sequence, on_tuning=on_tuning)
        sequential, corrected, tuned = (step.taken for step in amended.decisions)
        return replace(facts, sequential=sequential, corrected=corrected, tuned=tuned), packer.changed(amended)

    path = Path(output)
    entries = [tensor_entry(name, tensor) for name, tensor in tensors.items()]
    write_artifact(path, facts, tensors, entries, packer.parts, finished=finished)
    found, predicted = path.stat().st_size, wanted.size.file_bytes
    if found != predicted:
        path.unlink()
        raise ApplyError(f"the file has {found} bytes, the plan predicts {predicted}: this is a bug in mpq, please report it")
    return Applied(path, found, wanted.original_bytes + rest.original_bytes, *amended.decisions, statistics.fallbacks)


class _Packer:
    """Packs one layer after another, and checks each; with `keep` it keeps the codes."""

    def __init__(
        self, variants: Variants, plan: Plan, layers: list[Layer], *, allow_unchanged: bool, on_progress: Progress | None, keep: bool
    ) -> None:
        self._plan, self._variants = plan, variants
        self._layers = {layer.name: layer for layer in layers}
        self._allow_unchanged, self._on_progress = allow_unchanged, on_progress
        self._done, self._keep = 0, keep
        self.kept: dict[str, QuantizedWeight] = {}

    def parts(self, name: str) -> Mapping[str, Tensor]:
        """The packed parts of one layer."""
        layer, scheme = self._layers[name], self._plan.layers[name]
        weight = self._variants.quantized(name, scheme)
        packed, values = self._packed(name, weight)
        if not scheme.is_float and not self._allow_unchanged:
            self._check_changed(layer, values)
        if self._keep:
            self.kept[name] = weight
        self._done += 1
        if self._on_progress is not None:
            self._on_progress(self._done, len(self._layers), name)
        return packed

    def changed(self, amended: Amended) -> dict[str, Tensor]:
        """What is stored otherwise after all steps, by name in the file."""
        others = amended.weights.items()
        parts = {f"{name}.{part}": tensor for name, weight in others for part, tensor in self._packed(name, weight)[0].items()}
        return amended.tensors | parts

    def _packed(self, name: str, weight: QuantizedWeight) -> tuple[dict[str, Tensor], Tensor]:
        """The parts of a layer, checked, and the values that they stand for."""
        packed, values = weight.pack(), weight.dequantize()
        if not torch.equal(unpack_weight(packed, weight.scheme, weight.matrix).dequantize(), values):
            raise ApplyError(
                f"layer '{name}' at {weight.scheme} does not read back as it was packed: this is a bug in mpq, please report it"
            )
        return packed, values

    def _check_changed(self, layer: Layer, values: Tensor) -> None:
        if torch.equal(values, to_matrix(tensor_of(self._variants.module, layer.parameters[0]).detach(), layer.axes)):
            raise ApplyError(
                f"layer '{layer.name}' did not change: its weights already lie on the grid of {self._plan.layers[layer.name]}; "
                "if that is right, use --allow-unchanged"
            )


def _split(plan: Plan, model: LoadedModel, data: Data | Iterable[Any] | None) -> Split:
    """The data that the plan was made with, split as it was then."""
    if data is None:
        source = plan.data.get("source", "the data of the analysis")
        raise ApplyError(f"quantizer '{plan.quantizer}' needs the calibration data that the plan was made with ({source}): give it as data")
    samples = data if isinstance(data, Data) else fit_data(data, model=model, source="memory")
    if samples.sha256 != plan.data.get("sha256"):
        expected = str(plan.data.get("sha256"))[:12]
        raise MismatchError(f"the plan was made with other calibration data (sha256 {expected}…, this has {samples.sha256[:12]}…)")
    return samples.split_as(plan.data)
