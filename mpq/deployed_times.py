"""The time of each layer in the runtime that will run the export, for `mpq profile --runtime`.

The model is exported once for each candidate, with every layer under it that may be. Tensors between layers are integers where the analysis
measured them and the weights behind are integers too. The profiler of the runtime tells the time of each layer (`export/timing.py`). Two
more exports mix the candidates, to compare what the times predict with what they take: runtimes compute a layer in integers only among
other such layers, so times add up among integer schemes, and less so between these and others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mpq.apply.run import apply
from mpq.data.batch import Batch
from mpq.data.dataset import Data
from mpq.export.base import Options
from mpq.export.run import export
from mpq.export.timing import Times, layer_times
from mpq.formats.activations import ALL, OFF, is_integer_product
from mpq.formats.scheme import Scheme
from mpq.models.sources.loaded import LoadedModel
from mpq.records.measured_activations import groups_of
from mpq.records.plan import Plan
from mpq.records.sensitivity import Sensitivity
from mpq.search.activations import chosen_groups
from mpq.search.run import search

MIXED = "all schemes in turn"  # the last check
_FLOAT = Scheme("fp32")
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Deployed:
    """Seconds of one call.

    Args:
        layers: by layer and scheme.
        whole: of the unquantized model.
        checks: predicted and measured, of the exports: by scheme, and of two that mix schemes.
    """

    layers: Mapping[tuple[str, Scheme], float]
    whole: float
    checks: Mapping[str, tuple[float, float]]


def deployed_times(
    model: LoadedModel,
    table: Sensitivity,
    data: Data,
    batch: Batch,
    *,
    runtime: str,
    threads: int,
    seconds: float = 2.0,
    factory: str | None = None,
    trust: bool = False,
    cache: Path | None = None,
    on_progress: Progress | None = None,
) -> Deployed:
    """Measure the exports of a model.

    Args:
        model: the unquantized model; unchanged.
        table: its analysis.
        data: all samples of the analysis.
        batch: what the exports are called with.
        runtime: one of `mpq.export.registry.RUNTIMES`.
        threads: that it may use.
        seconds: to spend on each export.
        factory: builds the module of a state dict.
        trust: allow the model's file to run its own code.
        cache: folder where the analysis kept codes.
        on_progress: called after each export.

    Raises:
        ExportError: if the model cannot be exported, or a runtime is not installed.
    """
    names, candidates = [layer.name for layer in table.layers], table.header.candidates
    plans = {str(scheme): _near(candidates, scheme) for scheme in dict.fromkeys(each for found in candidates.values() for each in found)}
    integers = {name: [each for each in found if is_integer_product(each)] or list(found) for name, found in candidates.items()}
    mixes = {"integer schemes in turn": _in_turn(integers), MIXED: _in_turn(candidates)}
    whole, *found = _measured(
        model,
        table,
        [dict.fromkeys(names, _FLOAT), *plans.values(), *mixes.values()],
        data,
        batch,
        Options(factory=factory, trust=trust),
        cache,
        lambda path, inputs: layer_times(path, names, inputs, runtime=runtime, threads=threads, seconds=seconds),
        on_progress or (lambda *_: None),
    )
    times = {
        (name, schemes[name]): spent
        for (label, schemes), measured in zip(plans.items(), found, strict=False)
        for name, spent in zip(names, measured.layers, strict=True)
        if str(schemes[name]) == label
    }
    predicted = {label: sum(times[pair] for pair in schemes.items()) for label, schemes in (plans | mixes).items()}
    return Deployed(times, whole.whole, {label: (guess, took.whole) for (label, guess), took in zip(predicted.items(), found, strict=True)})


def _near(candidates: Mapping[str, Sequence[Scheme]], wanted: Scheme) -> dict[str, Scheme]:
    """Every layer under one scheme; where it is not a candidate, under one of the same kind."""

    def near(found: Sequence[Scheme]) -> Scheme:
        alike = [each for each in found if is_integer_product(each) == is_integer_product(wanted)]
        return wanted if wanted in found else (alike or list(found))[-1]

    return {name: near(found) for name, found in candidates.items()}


def _in_turn(candidates: Mapping[str, Sequence[Scheme]]) -> dict[str, Scheme]:
    return {name: found[place % len(found)] for place, (name, found) in enumerate(candidates.items())}


def _measured(
    model: LoadedModel,
    table: Sensitivity,
    wanted: Sequence[Mapping[str, Scheme]],
    data: Data,
    batch: Batch,
    options: Options,
    cache: Path | None,
    measure: Callable[[Path, Sequence[Any]], Times],
    on_progress: Progress,
) -> list[Times]:
    bare, found = search(table, "32bits", trials=0, activations=OFF).plan, list[Times]()
    with TemporaryDirectory() as folder:
        made = _Exports(model, data, batch, options, Path(folder), cache)
        for schemes in wanted:
            found.append(measure(made.export(_plan(bare, table, schemes)), made.inputs))
            on_progress(len(found), len(wanted), f"export {len(found)}")
    return found


def _plan(bare: Plan, table: Sensitivity, schemes: Mapping[str, Scheme]) -> Plan:
    groups = chosen_groups(table, schemes, ALL)
    plan = replace(bare.with_layers(schemes), budget=None, pinned=(), ties=())
    return replace(plan, activations=groups_of({each.name: each for each in groups}))


class _Exports:
    """Exports of one model, each in place of the one before."""

    def __init__(self, model: LoadedModel, data: Data, batch: Batch, options: Options, folder: Path, cache: Path | None) -> None:
        self._model, self._data, self._folder, self._cache = model, data, folder, cache
        sample = None if model.kind == "export" else str(folder / "sample.pt")
        if sample is not None:
            torch.save(dict(batch.kwargs) or (batch.args[0] if len(batch.args) == 1 else batch.args), sample)
        self._options = replace(options, data=sample, model=model.path, compare=False, fingerprint=False)
        self.inputs: Sequence[Any] = [leaf.numpy() for leaf in pytree.tree_leaves((batch.args, batch.kwargs)) if isinstance(leaf, Tensor)]

    def export(self, plan: Plan) -> Path:
        """The ONNX file of a plan."""
        artifact = self._folder / "model.mpq.safetensors"
        apply(self._model, plan, artifact, data=self._data, recovery=False, allow_unchanged=True, cache=self._cache)
        return export(artifact, "onnx", self._folder / "model.onnx", options=self._options).path
