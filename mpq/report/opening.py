"""The first sentences of a report, in plain words: the size, the distance from the original, and how good that is by which standard."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from mpq.records.evaluation import Evaluation
from mpq.report.report_input import Subject
from mpq.report.words import figure, noise, size
from mpq.shown import times_smaller

_GRADES = ((0.02, "very close"), (0.05, "close"), (0.15, "visibly different"), (math.inf, "far"))
_SCALE = "very close: up to 2%; close: up to 5%; far: beyond 15%"
_STANDARDS: dict[str, tuple[Callable[[float], float], str]] = {
    "kl_divergence": (lambda error: math.sqrt(error / 2), "on average at most {share} of the probability moves (Pinsker's inequality)"),
    "relative_mse": (math.sqrt, "the outputs differ by {share} of their size"),
    "cosine": (lambda error: math.sqrt(2 * error), "the outputs differ by {share} of their length"),
    "top1": (lambda error: error, "{share} of the first answers change"),
}


def opening(subject: Subject, metric: str) -> str:
    """The sentences.

    Args:
        subject: the subject of the report.
        metric: in words.
    """
    return " ".join(part for part in (_size(subject), _error(subject, metric), _accuracy(subject.evaluation)) if part)


def judged(name: str, error: float) -> str:
    """What an error means and how good it is; empty for a metric without a standard.

    Args:
        name: of the metric.
        error: its mean.
    """
    if name not in _STANDARDS or not math.isfinite(error):
        return ""
    share_of, words = _STANDARDS[name]
    share = share_of(max(error, 0.0))
    grade = next(word for most, word in _GRADES if share <= most)
    return f"{words.format(share=_percent(share))}, which is {grade} ({_SCALE})"


def _size(subject: Subject) -> str:
    plan = subject.plan
    if plan is not None:
        whole, taken = plan.original_bytes + plan.rest.original_bytes, plan.size.file_bytes
        return f"{subject.title} takes {size(taken)} instead of {size(whole)}: {times_smaller(whole, taken)}."
    return f"The artifact of {subject.title} takes {size(subject.artifact_bytes)}." if subject.artifact_bytes is not None else ""


def _error(subject: Subject, metric: str) -> str:
    measured: Mapping[str, Any] = subject.evidence.get("measured", {})
    held, samples = measured.get("held_out"), measured.get("samples")
    if held is None:
        predicted = subject.evidence.get("predicted")
        return "" if predicted is None else f"Its {metric} is predicted to be {figure(predicted)}; this plan was not measured as a whole."
    count = samples.get("held_out") if isinstance(samples, dict) else None
    where = f"{count} held-out samples" if count else "held-out samples"
    said = judged(str(subject.metric), float(held))
    error = f"On {where}, its {metric} from the original is {figure(held)} {noise(measured.get('held_out_stderr'))}".rstrip()
    return f"{error}. {said[0].upper()}{said[1:]}." if said else f"{error}."


def _accuracy(found: Evaluation | None) -> str:
    """The accuracy from `mpq eval`, and whether the loss is larger than chance."""
    accuracy = None if found is None else next((each for each in found.figures if each.name == "accuracy"), None)
    if found is None or accuracy is None or accuracy.reference is None:
        return ""
    lost, chance = accuracy.reference - accuracy.quantized, math.sqrt(accuracy.reference * (1 - accuracy.reference) / found.samples)
    told = f"Accuracy on {found.samples:,} samples of {found.source} is {accuracy.quantized:.2%}, the original's {accuracy.reference:.2%}"
    if lost <= 0:
        return f"{told}: nothing is lost."
    within = "within" if lost <= chance else "more than"
    return f"{told}: {100 * lost:.2g} points are lost, {within} the ±{100 * chance:.2g} expected from the choice of samples."


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%" if share < 1 else f"{100 * share:.0f}%"
