"""Makes the baseline of any model that can be watched."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mpq.calibration.baseline import sketched
from mpq.data.batch import Batch
from mpq.monitor.sessions import as_module
from mpq.progress import Advance
from mpq.records.baseline import Baseline


def baseline_of(
    model: Any,
    batches: Iterable[Batch],
    layers: Iterable[str] | None = None,
    *,
    on_progress: Advance = lambda *_: None,
    on_row: Callable[[dict[str, float | None]], None] = lambda _: None,
) -> Baseline:
    """The baseline of a model on calibration data, see `calibration/baseline.py`.

    Args:
        model: the model in the form in which it will run: an `nn.Module`, or an ONNX Runtime session.
        batches: at least two.
        layers: names of modules whose inputs are also watched; None for up to eight of those that hold weights, evenly spaced.
        on_progress: called after each batch.
        on_row: called with what each batch was like, see `monitor/table.py`.

    Raises:
        UsageError: if there are fewer than two batches.
    """
    return sketched(as_module(model), batches, layers, on_progress=on_progress, on_row=on_row)
