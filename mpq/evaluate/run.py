"""Evaluation: the quantized model against the reference, on data not used for tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mpq.data.dataset import Batch, Data
from mpq.errors import NumericsError
from mpq.evaluate.answers import Answers
from mpq.models.inputs.fit_to_model import fit_data
from mpq.models.running.certainty import Certainty
from mpq.models.running.choose_comparison import choose_comparison
from mpq.models.running.comparison import Comparison, Part, metric_named
from mpq.models.running.forward import forward
from mpq.models.running.habits import examine, habits_of
from mpq.models.running.logits import allowed_classes
from mpq.models.running.metric_registry import COMBINED, EVALUATED
from mpq.models.running.metrics import CosineDistance, KLDivergence, has_direction, undirected
from mpq.models.running.positions import mask_of_output
from mpq.models.sources.load import from_module
from mpq.models.sources.loaded import LoadedModel
from mpq.progress import reported
from mpq.records.evaluation import Evaluation, Figure
from mpq.records.sensitivity import standard_error

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what) after each batch."""


def evaluate(
    reference: nn.Module | LoadedModel,
    quantized: nn.Module | LoadedModel,
    data: Data | Iterable[Any],
    *,
    outputs: Sequence[str] = (),
    progress: bool = False,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Metrics of `quantized` next to those of `reference`.

    Always: relative_mse and cosine, the mean over all compared outputs and, if there are several, of each. If there are several, also
    their combined error, each divided by its spread, as in an analysis. If an output is logits or probabilities:
    kl_divergence (nats; mean, 95% quantile and maximum over samples) and top1_agreement. With labels, or for a language
    model with its own next tokens: accuracy and loss (nats), and perplexity for a language model. Padding never counts.

    Args:
        reference: the unquantized model.
        quantized: the result of `load`.
        data: the result of `load_data`, or batches as from a DataLoader.
        outputs: names or globs of the outputs to compare; empty compares all that are not computed from others.
        progress: show progress: a bar on a terminal, a line in a notebook.
        on_progress: called after each batch.

    Raises:
        DataError: if the data does not match the models.
        NumericsError: if an output is not finite.
    """
    before, after = _module(reference), _module(quantized)
    samples = data if isinstance(data, Data) else fit_data(data, model=_loaded(reference), source="memory")
    habits = habits_of(before)
    examine(after, samples.batches, lambda batch: forward(after, batch), seed=habits is not None and habits.seed is not None)
    comparison = choose_comparison(before, samples.batches, outputs=outputs).comparison
    columns = [_Column(part, alone=len(comparison.parts) == 1, only_logits=_kl_parts(comparison) == 1) for part in comparison.parts]
    certainty = Certainty(comparison)
    with reported("evaluate", wanted=progress, also=on_progress) as advance:
        for done, batch in enumerate(samples.batches, start=1):
            expected, found = comparison.picked(forward(before, batch)), comparison.picked(forward(after, batch))
            for column, own, other in zip(columns, expected, found, strict=True):
                column.add(own, other, batch)
            certainty.add(expected, batch)
            advance(done, len(samples.batches), "evaluate")
    return Evaluation(
        tuple(_figures(columns)), samples.samples, samples.source, certainty.note("evaluate on validation data"), _notes(columns)
    )


class _Column:
    """The errors of one output over batches."""

    def __init__(self, part: Part, *, alone: bool, only_logits: bool) -> None:
        self.part, self._alone, self._only_logits = part, alone, only_logits
        self.logits = part.metric == KLDivergence.name
        suited = [name for name, each in EVALUATED.items() if self.logits or not each.classes]
        self._metrics = [
            part.made() if name == part.metric else metric_named(name, probabilities=part.probabilities, floor=part.floor)
            for name in suited
        ]
        self.errors: dict[str, list[Tensor]] = {name: [] for name in suited}
        self.single = True
        self.answers = tuple(Answers(probabilities=part.probabilities) for _ in range(2))

    def add(self, expected: Tensor, found: Tensor, batch: Batch) -> None:
        """Compare one batch."""
        self.single = self.single and expected[0].numel() == 1
        mask = mask_of_output(batch.mask, expected, self.part.mask)
        for metric in self._metrics:
            before, after = (expected, found) if EVALUATED[metric.name].classes else self._visible(expected, found)
            prepared = metric.prepare([before], mask)
            errors = metric.errors(prepared, [after])
            if not bool(torch.isfinite(errors).all()):
                which = "quantized" if bool(torch.isfinite(metric.errors(prepared, [before])).all()) else "reference"
                raise NumericsError(f"the {which} model gives NaN or infinity on this data: check the data's scale")
            if metric.name == CosineDistance.name:
                errors = errors.where(has_direction(prepared[0]), torch.nan)
            self.errors[metric.name].append(errors.cpu())
        if self.logits:
            for answers, output in zip(self.answers, (expected, found), strict=True):
                answers.add(output, batch, reference=expected)

    def joined(self, name: str) -> Tensor:
        """The errors of all samples; NaN where the reference's output has no direction, for the cosine."""
        return torch.cat(self.errors[name])

    @property
    def undirected(self) -> tuple[int, int]:
        """How many samples have an output without a direction, and of how many."""
        values = self.joined(CosineDistance.name)
        return int(values.isnan().sum()), len(values)

    @property
    def told(self) -> list[str]:
        """The metrics that say something: the cosine of single values is 1 or -1, and outputs without a direction have none."""
        missing, samples = self.undirected
        return [name for name in self.errors if name != CosineDistance.name or not (self.single or missing == samples)]

    def figures(self) -> list[Figure]:
        """One value per metric, and its quantiles; named by the metric alone if only one output has it."""
        found: list[Figure] = []
        for name in self.told:
            known = EVALUATED[name]
            prefix = "" if self._alone or (known.classes and self._only_logits) else f"{self.part.output}."
            values = self.joined(name)
            found.append(_figure(name, values, prefix=prefix))
            found += [Figure(prefix + label, float(torch.quantile(values, share))) for label, share in known.quantiles]
        return found

    def _visible(self, expected: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        """Both outputs without the classes that the reference suppresses, whose huge values would hide all others."""
        if not self.logits or self.part.probabilities:
            return expected, found
        kept = allowed_classes(expected)
        return (expected, found) if kept is None else (expected.where(kept, 0.0), found.where(kept, 0.0))


def _kl_parts(comparison: Comparison) -> int:
    return sum(part.metric == KLDivergence.name for part in comparison.parts)


def _figures(columns: Sequence[_Column]) -> list[Figure]:
    figures = [figure for column in columns for figure in column.figures()]
    counted = [column for column in columns if column.part.weight]  # others are the same for all samples
    if len(columns) > 1:
        for name in (name for name, each in EVALUATED.items() if not each.classes):
            joined = [column.joined(name) for column in counted if name in column.told]
            figures += [_figure(name, torch.stack(joined).nanmean(0))] if joined else []
        errors = torch.stack([column.part.weight * column.joined(column.part.metric) for column in counted]).sum(0)
        figures.append(Figure(COMBINED, float(errors.mean()), stderr=standard_error(errors.numpy())))
    return figures + next((found for column in columns if (found := _compared(*column.answers))), [])


def _figure(name: str, values: Tensor, *, prefix: str = "") -> Figure:
    known, values = EVALUATED[name], values[~values.isnan()]
    mean = float(values.mean())
    return Figure(prefix + known.figure, 1 - mean if known.agreement else mean, stderr=standard_error(values.numpy()))


def _notes(columns: Sequence[_Column]) -> tuple[str, ...]:
    """What the cosine and the loss leave out."""
    counts = [(column.part.output, *column.undirected) for column in columns if not column.single]
    notes = [f"{undirected(*count)}; they are left out" for count in counts if count[1]]
    counted = next((column.answers[0] for column in columns if column.answers[0].answers), None)
    if counted is not None and counted.suppressed:
        which = f"{counted.suppressed} of {counted.answers} right answers"
        notes.append(f"{which} are classes that the reference suppresses: they count as wrong, and the loss leaves them out")
    return tuple(notes)


def _compared(before: Answers, after: Answers) -> list[Figure]:
    if not after.answers:
        return []
    figures = [Figure("accuracy", after.right / after.answers, before.right / before.answers)]
    if after.suppressed == after.answers:
        return figures
    figures.append(Figure("loss", after.mean_loss, before.mean_loss))
    return [*figures, Figure("perplexity", after.perplexity, before.perplexity)] if after.language else figures


def _module(model: nn.Module | LoadedModel) -> nn.Module:
    return model.module if isinstance(model, LoadedModel) else model


def _loaded(model: nn.Module | LoadedModel) -> LoadedModel:
    return model if isinstance(model, LoadedModel) else from_module(model)
