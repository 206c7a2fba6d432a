"""Evaluation: the quantized model against the reference, on data that nothing was tuned on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mpq.data.dataset import Batch, Data
from mpq.errors import NumericsError
from mpq.models.inputs.fit_to_model import fit_data
from mpq.models.running.forward import forward
from mpq.models.running.metric_registry import EVALUATED
from mpq.models.running.metrics import metric_named
from mpq.models.running.output_kind import labels_fit, outputs_are_logits
from mpq.models.sources.load import from_module
from mpq.models.sources.loaded import LoadedModel
from mpq.records.evaluation import Evaluation, Figure
from mpq.records.sensitivity import standard_error

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what) after each batch."""


def evaluate(
    reference: nn.Module | LoadedModel,
    quantized: nn.Module | LoadedModel,
    data: Data | Iterable[Any],
    *,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Figures of `quantized` beside those of `reference`.

    Always: relative_mse and cosine. Where the output is logits or probabilities: kl_divergence (nats; mean, 95% quantile and maximum
    over samples) and top1_agreement. With labels, or for a language model with its own next tokens: accuracy and loss (nats), and
    perplexity for a language model.

    Args:
        reference: the unquantized model.
        quantized: what `load` gave.
        data: what `load_data` gave, or batches as from a DataLoader.
        on_progress: told after each batch.

    Raises:
        DataError: if the data does not fit the models.
        NumericsError: if an output is not finite.
    """
    before, after = _module(reference), _module(quantized)
    samples = data if isinstance(data, Data) else fit_data(data, model=_loaded(reference), source="memory")
    kind = outputs_are_logits(before, forward(before, samples.batches[0]), samples.batches[0]).kind
    suited = [name for name, each in EVALUATED.items() if kind != "other" or not each.classes]
    metrics = [metric_named(name, probabilities=kind == "probabilities") for name in suited]
    errors: dict[str, list[Tensor]] = {metric.name: [] for metric in metrics}
    tallies = (_Tally(probabilities=kind == "probabilities"), _Tally(probabilities=kind == "probabilities"))
    for done, batch in enumerate(samples.batches, start=1):
        expected, found = forward(before, batch), forward(after, batch)
        _check_finite(expected, "reference")
        _check_finite(found, "quantized")
        for metric in metrics:
            errors[metric.name].append(metric.errors(metric.prepare(expected), found))
        if kind != "other":
            for tally, outputs in zip(tallies, (expected, found), strict=True):
                tally.add(outputs[0], batch)
        if on_progress is not None:
            on_progress(done, len(samples.batches), "evaluate")
    joined = {name: torch.cat(parts) for name, parts in errors.items()}
    return Evaluation((*_distances(joined), *_compared(*tallies)), samples.samples, samples.source)


class _Tally:
    """Right answers and log-likelihood of one model, against labels or its own next tokens."""

    def __init__(self, *, probabilities: bool) -> None:
        self._probabilities = probabilities
        self.answers = self.right = 0
        self.loss = 0.0
        self.language = False

    def add(self, output: Tensor, batch: Batch) -> None:
        """Count one batch; without labels and tokens nothing is counted."""
        logits, targets = _targets(output, batch)
        if targets is None:
            return
        self.language = self.language or logits.ndim == 3
        flat, wanted = logits.reshape(-1, logits.shape[-1]).float(), targets.reshape(-1)
        kept = wanted != -100
        logs = flat.clamp(min=1e-30).log() if self._probabilities else torch.log_softmax(flat, -1)
        chosen = logs.gather(-1, wanted.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        self.loss -= float(chosen[kept].double().sum())
        self.right += int((flat.argmax(-1) == wanted)[kept].sum())
        self.answers += int(kept.sum())


def _targets(output: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """The logits that have an answer, and the answers: labels, or the next token of a language model."""
    if labels_fit(output, batch.labels):
        return output, batch.labels
    tokens = batch.kwargs.get("input_ids", batch.args[0] if batch.args else None)
    if batch.labels is not None or not isinstance(tokens, Tensor) or tokens.is_floating_point():
        return output, None
    fits = output.ndim == 3 and output.shape[:2] == tokens.shape and tokens.shape[1] > 1 and int(tokens.max()) < output.shape[-1]
    return (output[:, :-1], tokens[:, 1:]) if fits else (output, None)


def _distances(errors: dict[str, Tensor]) -> list[Figure]:
    found: list[Figure] = []
    for name, values in errors.items():
        mean, stderr = float(values.mean()), standard_error(values.numpy())
        known = EVALUATED[name]
        found.append(Figure(known.figure, 1 - mean if known.agreement else mean, stderr=stderr))
        found += [Figure(label, float(torch.quantile(values, share))) for label, share in known.quantiles]
    return found


def _compared(before: _Tally, after: _Tally) -> list[Figure]:
    if not after.answers:
        return []
    losses = before.loss / before.answers, after.loss / after.answers
    figures = [
        Figure("accuracy", after.right / after.answers, before.right / before.answers),
        Figure("loss", losses[1], losses[0]),
    ]
    return [*figures, Figure("perplexity", math.exp(losses[1]), math.exp(losses[0]))] if after.language else figures


def _module(model: nn.Module | LoadedModel) -> nn.Module:
    return model.module if isinstance(model, LoadedModel) else model


def _loaded(model: nn.Module | LoadedModel) -> LoadedModel:
    return model if isinstance(model, LoadedModel) else from_module(model)


def _check_finite(outputs: tuple[Tensor, ...], which: str) -> None:
    if not all(bool(torch.isfinite(output).all()) for output in outputs):
        raise NumericsError(f"the {which} model gives NaN or infinity on this data: check the data's scale")
