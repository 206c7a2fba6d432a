"""Which metric an error is measured in: the one that was named, or the one that fits what the model returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mpq.data.dataset import Data
from mpq.models.running.forward import forward
from mpq.models.running.metrics import Metric, metric_for, metric_named
from mpq.models.running.output_kind import OutputKind, outputs_are_logits
from mpq.models.sources.loaded import LoadedModel


def output_kind(model: LoadedModel | nn.Module, data: Data) -> OutputKind:
    """What the model returns for the first batch: logits, probabilities or something else, with the reason."""
    module = model if isinstance(model, nn.Module) else model.module
    batch = data.batches[0]
    return outputs_are_logits(model, forward(module, batch), batch)


def choose_metric(model: LoadedModel | nn.Module, data: Data, name: str | None = None) -> tuple[Metric, str]:
    """The metric called `name`, or for None and "auto" the one that fits the model's output; and the reason, for people.

    Raises:
        UsageError: if there is no metric of this name.
    """
    found, automatic = output_kind(model, data), name in (None, "auto")
    metric = metric_for(found.kind, None if automatic else name)
    return metric, f"metric {metric.name}: {found.reason if automatic else 'as asked'}"


def recorded_metric(settings: Mapping[str, Any]) -> Metric:
    """The metric of an analysis, from the settings in its header.

    Raises:
        UsageError: if this mpq has no such metric.
    """
    return metric_named(str(settings["metric"]), probabilities=bool(settings["probabilities"]))
