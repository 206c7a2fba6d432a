"""Makes the baseline of a model: sketches of its calibration data, and how much they differ between samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from typing import Any

import torch
from torch import nn

from mpq.calibration.observe import Observer
from mpq.data.batch import Batch
from mpq.errors import UsageError
from mpq.evidence.drift import stability_index
from mpq.models.running.forward import call
from mpq.progress import Advance
from mpq.records.baseline import Baseline
from mpq.records.monitor_log import TIME
from mpq.records.sketch import Sketch

_PARTS = 8  # of the data, each compared with all others
_WATCHED = 8


def sketched(
    module: nn.Module,
    batches: Iterable[Batch],
    layers: Iterable[str] | None = None,
    *,
    on_progress: Advance = lambda *_: None,
    on_row: Callable[[dict[str, float | None]], None] = lambda _: None,
) -> Baseline:
    """The baseline of a model on calibration data. Data that the model was not trained on is best: on training data it is too certain.

    Args:
        module: the model in the form in which it will run.
        batches: at least two.
        layers: names of modules whose inputs are also watched; None for up to eight of those that hold weights, evenly spaced.
        on_progress: called after each batch.
        on_row: called with what each batch was like, see `monitor/table.py`.

    Raises:
        UsageError: if there are fewer than two batches.
    """
    names = watchable(module) if layers is None else list(layers)
    parts = [Observer(module, names) for _ in range(_PARTS)]
    known = list(batches)
    for number, batch in enumerate(known):
        observer, inputs = parts[number % _PARTS], (batch.args, batch.kwargs)
        with observer.hooked(inputs):
            observer.see(inputs, call(module, batch))
        on_row({TIME: time.time(), **observer.row})  # programs that compare tables want the same columns in both
        on_progress(number + 1, len(known), "")
    return joined([observer.sketches for observer in parts[: len(known)]])


def joined(parts: list[Mapping[str, Sketch]]) -> Baseline:
    """The baseline of data of which each part was sketched.

    Raises:
        UsageError: if there are fewer than two parts.
    """
    if len(parts) < 2:
        raise UsageError(
            f"{len(parts)} batches are too few for a baseline: give two or more, so that one part can be compared with the others"
        )
    names = [name for name in parts[0] if all(name in part for part in parts)]
    found = {name: [part[name] for part in parts] for name in names}
    return Baseline({name: reduce(Sketch.merged, found[name]) for name in names}, {name: _noise(found[name]) for name in names})


def watchable(module: nn.Module) -> list[str]:
    """Names of up to eight innermost modules that hold matrices, evenly spaced; none in programs, whose modules are not called."""
    if isinstance(module, torch.jit.ScriptModule) or hasattr(module, "graph"):
        return []
    found = [
        name
        for name, each in module.named_modules()
        if name and not any(each.children()) and not isinstance(each, nn.Embedding) and _holds_matrix(each)
    ]
    steps = min(_WATCHED, len(found))
    return [found[round(step * (len(found) - 1) / max(1, steps - 1))] for step in range(steps)]


def _holds_matrix(module: Any) -> bool:
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return any(tensor.ndim > 1 for tensor in tensors)


def _noise(parts: list[Sketch]) -> float:
    """The mean stability index between each part and the others, for one sample: see `Baseline.noise`."""
    total = 0.0
    for place, part in enumerate(parts):
        others = reduce(Sketch.merged, [*parts[:place], *parts[place + 1 :]])
        total += stability_index(others, part) / (1 / max(1, part.samples) + 1 / max(1, others.samples))
    return total / len(parts)
