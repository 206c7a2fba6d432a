"""Whether a model's output is logits: decides between KL divergence and a plain error, with the reason as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.models.running.forward import call, main_output

if TYPE_CHECKING:
    from mpq.models.sources.loaded import LoadedModel

IGNORED_LABEL = -100  # torch's convention for "no label here"
_TOLERANCE = 1e-3
_ROWS = 1024  # enough to tell
_MANY_ROWS = 8  # fewer rows may have one norm by chance


@dataclass(frozen=True)
class OutputKind:
    """What the first output is.

    Args:
        kind: "logits", "probabilities" (softmax already taken), or "other"; classes lie along the last dimension.
        reason: why, as a sentence without a full stop, to be printed beside the metric that follows from it.
    """

    kind: Literal["logits", "probabilities", "other"]
    reason: str


def outputs_are_logits(model: LoadedModel | nn.Module, outputs: Sequence[Tensor], batch: Batch) -> OutputKind:
    """What the first of `outputs` is, as far as names, labels and values tell.

    Args:
        model: the model; it is called once more, for the names of its outputs.
        outputs: what `forward` gave for `batch`.
        batch: inputs, with labels if there are any.
    """
    module = model if isinstance(model, nn.Module) else model.module
    name, _ = main_output(call(module, batch))
    first = outputs[0].detach().float()
    if name == "last_hidden_state":
        return OutputKind("other", "the output is last_hidden_state, not logits")
    if len(outputs) > 1:
        return OutputKind("other", f"the model returns {len(outputs)} tensors, so the first is not taken for logits")
    if first.ndim not in (2, 3) or first.shape[-1] < 2:
        return OutputKind("other", f"an output of shape {list(first.shape)} has no classes along its last dimension")
    return _by_values(first, name, batch.labels)


def labels_fit(outputs: Tensor, labels: Tensor | None) -> bool:
    """Whether `labels` are integers that index the last dimension of `outputs`, one per row; -100 stands for no label."""
    if labels is None or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        return False
    return labels.shape == outputs.shape[:-1] and not bool(out_of_range(labels, outputs.shape[-1]).any())


def out_of_range(labels: Tensor, classes: int) -> Tensor:
    """Where `labels` are neither a class nor -100."""
    return ((labels < 0) & (labels != IGNORED_LABEL)) | (labels >= classes)


def _by_values(first: Tensor, name: str | None, labels: Tensor | None) -> OutputKind:
    classes = first.shape[-1]
    rows = first.reshape(-1, classes)[:_ROWS]
    if _all_close(rows.sum(-1), 1.0) and bool((rows >= 0).all()):
        return OutputKind("probabilities", f"every row of the output sums to one: probabilities of {classes} classes")
    if name == "logits":
        return OutputKind("logits", f"the output is named logits ({classes} classes)")
    if _all_close(rows.norm(dim=-1), 1.0):
        return OutputKind("other", "every row of the output has norm one: an embedding, not logits")
    if labels_fit(first, labels):
        return OutputKind("logits", f"the labels are integers below {classes}, the last dimension of the output")
    return _by_range(rows)


def _by_range(rows: Tensor) -> OutputKind:
    norms, low, high = rows.norm(dim=-1), float(rows.min()), float(rows.max())
    if len(rows) >= _MANY_ROWS and _all_close(norms / norms.mean(), 1.0):
        return OutputKind("other", "all rows of the output have the same norm: normalised features, not logits")
    if low >= 0 and (high <= 1 or bool((rows == 0).any())):
        return OutputKind("other", "the output is never negative: features or independent probabilities, not logits")
    return OutputKind("logits", f"the output looks like logits of {rows.shape[-1]} classes; use --metric relative_mse if it is not")


def _all_close(values: Tensor, target: float) -> bool:
    return bool(((values - target).abs() <= _TOLERANCE).all())
