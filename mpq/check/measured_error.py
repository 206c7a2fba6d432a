"""The check that runs the model: how much worse an artifact is than its reference, on given data. No torch: the evaluator is injected."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from mpq.check.budgets import Rule
from mpq.check.measure_size import Weighed
from mpq.check.run import CERTAIN, Check
from mpq.errors import ConfigError
from mpq.models.running.metric_registry import AGREEMENTS
from mpq.records.evaluation import Evaluation, Figure

Measure = Callable[[Path, Rule], Evaluation]
"""Evaluates an artifact on the data of a rule."""
_DEFAULTS = ("kl_divergence", "relative_mse")


def measured_error(file: Weighed, rule: Rule, limit: float, measure: Measure) -> Check:
    """Whether the error of an artifact on the rule's data stays within `limit`.

    Raises:
        ConfigError: if the file is not an artifact, or the evaluation lacks the rule's metric.
        MpqError: if the artifact cannot be evaluated.
    """
    if file.kind != "artifact":
        raise ConfigError(f"`data` needs an artifact, and {file.path} is not one: name a file that `mpq apply` wrote, or omit `data`")
    found = measure(Path(file.path), rule)
    figure = _figure(found, rule.metric)
    error = shortfall(figure)
    spread = f" ±{figure.stderr:.2g}" if math.isfinite(figure.stderr) else ""
    relation = "within" if error <= limit else f"{error - limit:.4g} over"
    message = f"{error:.4g}{spread} on {found.samples:,} samples of {rule.data}, {relation} the limit of {limit:g}"
    message += "" if found.caution is None else CERTAIN
    return Check(f"error ({figure.name})", error <= limit, message)


def shortfall(figure: Figure) -> float:
    """How much worse than the reference: a loss of accuracy, a rise of loss or perplexity, a distance, or 1 - agreement."""
    if figure.name in AGREEMENTS:
        return 1 - figure.quantized
    if figure.reference is None:
        return figure.quantized
    return figure.reference - figure.quantized if figure.name == "accuracy" else figure.quantized - figure.reference


def _figure(found: Evaluation, metric: str | None) -> Figure:
    figures = {figure.name: figure for figure in found.figures}
    wanted = metric or next(name for name in _DEFAULTS if name in figures)
    if wanted not in figures:
        raise ConfigError(f"there is no metric '{wanted}' in the evaluation of {found.source}: it has {', '.join(figures)}")
    return figures[wanted]
