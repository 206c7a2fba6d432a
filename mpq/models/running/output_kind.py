"""Whether a model's output is logits: decides between KL divergence and a plain error, with the reason as text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mpq.data.batch import is_integer
from mpq.data.masks import IGNORED_LABEL
from mpq.models.running.logits import SUPPRESSED, allowed_classes

_TOLERANCE = 1e-3
_ROWS = 1024  # rows, enough to decide
_MANY_ROWS = 8  # fewer rows may have equal norms by chance
_NOT_LOGITS = re.compile(
    r"(\w+_)?(b?box(es)?|coord(s|inates)?|(key)?points?|landmarks?|vertices|offsets?|poses?|depths?|flow|embeds?|embeddings?|feat(ure)?s?"
    r"|hidden|hidden_states?|latents?|recon(struction)?s?|noise|waveforms?|audio|mels?|spectrograms?|mean|mu|log_?var|variance|std|sigma"
    r"|forecasts?|samples?|images?|values?|vectors?)",
    re.IGNORECASE,
)
"""Names of outputs that are not logits, whatever their values look like."""


@dataclass(frozen=True)
class OutputKind:
    """The kind of an output.

    Args:
        kind: "logits", "probabilities" (softmax already taken), or "other"; classes are along the last dimension.
        reason: why, as a sentence without a period, printed with the metric that follows from it.
        certain: whether names, labels or rows that sum to one prove it; else the values only look like it.
    """

    kind: Literal["logits", "probabilities", "other"]
    reason: str
    certain: bool = True


COMPLEX = OutputKind("other", "complex numbers, compared by their real and imaginary parts")


def kind_of(name: str, output: Tensor, labels: Tensor | None, *, alone: bool, named: bool) -> OutputKind:
    """The kind of an output, from its name, the labels and its values.

    Args:
        name: the output's name.
        output: its values for some samples.
        labels: the labels of these samples, if any.
        alone: whether it is the only compared output; among several, only those named logits count as logits.
        named: whether the name is meaningful.
    """
    values = output.detach().float()
    last = name.rpartition(".")[2]
    if last == "last_hidden_state":
        return OutputKind("other", "the output is last_hidden_state, not logits")
    if not alone and not last.endswith("logits"):
        return OutputKind("other", "one of several outputs, and not named logits")
    if values.ndim not in (2, 3) or values.shape[-1] < 2:
        return OutputKind("other", f"an output of shape {list(values.shape)} has no classes along its last dimension")
    return _by_values(values, last if named else None, labels)


def are_probabilities(rows: Tensor) -> bool:
    """Whether every row [rows, classes] is at least zero and sums to one: the softmax has been taken."""
    return _all_close(rows.sum(-1), 1.0) and bool((rows >= 0).all())


def labels_fit(outputs: Tensor, labels: Tensor | None) -> bool:
    """Whether `labels` are integers that index the last dimension of `outputs`, one per row; -100 means no label."""
    if labels is None or not is_integer(labels):
        return False
    return labels.shape == outputs.shape[:-1] and not bool(out_of_range(labels, outputs.shape[-1]).any())


def out_of_range(labels: Tensor, classes: int) -> Tensor:
    """Where `labels` are neither a class nor -100."""
    return ((labels < 0) & (labels != IGNORED_LABEL)) | (labels >= classes)


def _by_values(first: Tensor, name: str | None, labels: Tensor | None) -> OutputKind:
    classes = first.shape[-1]
    rows = first.reshape(-1, classes)[:_ROWS]
    if bool((rows == torch.inf).any()):
        return OutputKind("other", "an output with infinite values has no probabilities")
    allowed = allowed_classes(rows)
    hidden = torch.zeros_like(rows, dtype=torch.bool) if allowed is None else ~allowed & (rows < -SUPPRESSED)
    rows = rows.masked_fill(hidden, 0.0)  # suppressed classes are ignored
    if are_probabilities(rows):
        return OutputKind("probabilities", f"every row of the output sums to one: probabilities of {classes} classes")
    if (
        labels is not None
        and labels.is_floating_point()
        and labels.shape == first.shape
        and not are_probabilities(labels.reshape(-1, classes))
    ):
        return OutputKind("other", "the labels are numbers of the output's shape, not one class for each row")
    if name is not None and name.endswith("logits"):
        return OutputKind("logits", f"the output is named {name} ({classes} classes)")
    if name is not None and _NOT_LOGITS.fullmatch(name):
        return OutputKind("other", f"the output is named {name}, not logits")
    if _all_close(rows.norm(dim=-1), 1.0):
        return OutputKind("other", "every row of the output has norm one: an embedding, not logits")
    if labels_fit(first, labels):
        return OutputKind("logits", f"the labels are integers below {classes}, the last dimension of the output")
    return _by_range(rows, hidden)


def _by_range(rows: Tensor, hidden: Tensor) -> OutputKind:
    seen = rows[~hidden]
    norms, low, high = rows.norm(dim=-1), float(seen.min()), float(seen.max())
    if len(rows) >= _MANY_ROWS and _all_close(norms / norms.mean(), 1.0):
        return OutputKind("other", "all rows of the output have the same norm: normalised features, not logits")
    if low >= 0 and (high <= 1 or bool((seen == 0).any())):
        return OutputKind("other", "the output is never negative: features or independent probabilities, not logits")
    reason = f"the output looks like logits of {rows.shape[-1]} classes; use --metric relative_mse if it is not"
    return OutputKind("logits", reason, certain=False)


def _all_close(values: Tensor, target: float) -> bool:
    return bool(((values - target).abs() <= _TOLERANCE).all())
