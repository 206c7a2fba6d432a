"""How the outputs of two models are compared: which outputs, with which metric and weight.

A model with one output is compared by that output's metric, in its unit. A model with several outputs is compared in all of them. Errors in
nats and relative errors cannot be added directly, so each is divided by the spread of the reference in the same metric: how far the
reference's outputs on single samples are from their mean over all samples. Then "0.01" means one percent of the output's dependence on its
input, and every output has an equal share, unless the user gives weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from mpq.errors import ModelError, UsageError
from mpq.models.running.forward import named
from mpq.models.running.metric_registry import COMBINED, METRICS
from mpq.models.running.metrics import KLDivergence, Metric, Prepared, RelativeMSE
from mpq.models.running.positions import mask_of_output

FLOOR = 0.01
"""Relative errors divide by at least this share of the samples' upper quartile of the squared norm."""


def metric_named(name: str, *, probabilities: bool = False, floor: float = 1e-30) -> Metric:
    """The metric called `name`.

    Args:
        name: the metric's name.
        probabilities: whether the model's outputs are probabilities rather than logits.
        floor: see `RelativeMSE`.

    Raises:
        UsageError: if there is none; the message lists them.
    """
    if name == KLDivergence.name:
        return KLDivergence(probabilities=probabilities)
    if name == RelativeMSE.name:
        return RelativeMSE(floor=floor)
    return METRICS.kind(name)()


@dataclass(frozen=True)
class Part:
    """One compared output.

    Args:
        output: its name in `forward`.
        metric: name of the metric.
        weight: factor for its errors.
        probabilities: whether the output is probabilities rather than logits.
        floor: the smallest squared norm of a sample that counts, for relative errors.
        mask: what the batch's mask applies to: "positions" of the output, the same "scaled" to their number, positions in its "last"
            dimension, its "classes" (one distribution over the positions), or None.
    """

    output: str
    metric: str
    weight: float = 1.0
    probabilities: bool = False
    floor: float = 1e-30
    mask: str | None = "positions"

    def made(self) -> Metric:
        """The metric itself.

        Raises:
            UsageError: if there is no metric of that name.
        """
        if self.metric == KLDivergence.name:
            return KLDivergence(probabilities=self.probabilities, over_positions=self.mask == "classes")
        return metric_named(self.metric, probabilities=self.probabilities, floor=self.floor)


class Comparison(Metric):
    """The weighted sum of the errors of several outputs; with one output, its metric.

    It has the name of a metric only if it is a mean of that metric's errors; errors divided by spreads are "combined".

    Args:
        parts: the compared outputs.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        if not parts:
            raise UsageError("no output is compared: choose at least one with --outputs")
        self.parts = tuple(parts)
        self.metrics = tuple(part.made() for part in parts)
        names = {part.metric for part in parts}
        is_mean = math.isclose(sum(part.weight for part in parts), 1.0, rel_tol=1e-5)
        self.name = names.pop() if len(names) == 1 and is_mean else COMBINED
        self.has_projection = all(metric.has_projection for metric in self.metrics)  # type: ignore[misc]

    def picked(self, outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The compared outputs of a model, in the order of `parts`.

        Raises:
            ModelError: if one is missing, which happens if a model's outputs depend on its values.
        """
        by_name = named(outputs)
        missing = next((part.output for part in self.parts if part.output not in by_name), None)
        if missing is not None:
            raise ModelError(
                f"the model returned no output '{missing}' this time (it returned {', '.join(by_name)}): choose others with --outputs"
            )
        return tuple(by_name[part.output] for part in self.parts)

    def prepare(self, reference: Sequence[Tensor], mask: Tensor | None = None) -> Prepared:
        """The prepared reference of each part."""
        picked = self.picked(reference)
        masks = [mask_of_output(mask, one, part.mask) for part, one in zip(self.parts, picked, strict=True)]
        return tuple(metric.prepare([one], own) for metric, one, own in zip(self.metrics, picked, masks, strict=True))

    def errors(self, prepared: Prepared, outputs: Sequence[Tensor]) -> Tensor:
        """The weighted sum over the parts, for each sample."""
        return self.errors_by_part(prepared, outputs).sum(0)

    def errors_by_part(self, prepared: Prepared, outputs: Sequence[Tensor]) -> Tensor:
        """The weighted error of each part and sample, float64 [parts, samples]."""
        found = []
        for part, metric, kept, one in zip(self.parts, self.metrics, prepared, self.picked(outputs), strict=True):
            try:
                found.append(part.weight * metric.errors(kept, [one]))
            except ModelError as error:
                raise ModelError(f"output '{part.output}': {error}") from error
        return torch.stack(found)

    def project(self, prepared: Prepared, outputs: Sequence[Tensor], generator: torch.Generator) -> Tensor:
        """The sum of the parts' projections: their random signs are independent, so their squares add up."""
        parts = zip(self.parts, self.metrics, prepared, self.picked(outputs), strict=True)
        found = [part.weight**0.5 * metric.project(kept, [one], generator) for part, metric, kept, one in parts]
        total: Tensor = torch.stack(found).sum() if len(found) > 1 else found[0]
        return total

    def settings(self) -> dict[str, Any]:
        """The comparison in the form that an analysis records."""
        first = self.parts[0]
        return {"metric": self.name, "probabilities": first.probabilities, "outputs": [asdict(part) for part in self.parts]}


def by_relative_error(metric: Metric) -> Metric:
    """The same outputs, all compared by their relative error."""
    if not isinstance(metric, Comparison):
        return RelativeMSE()
    parts = [part for part in metric.parts if part.weight]  # others are the same for all samples
    share, name = 1 / len(parts), RelativeMSE.name
    masks = ["positions" if part.mask == "classes" else part.mask for part in parts]
    return Comparison([Part(part.output, name, share, floor=part.floor, mask=mask) for part, mask in zip(parts, masks, strict=True)])


def comparison_from(settings: Mapping[str, Any]) -> Comparison | Metric:
    """The comparison that an analysis recorded; older analyses, which recorded none, compare the main output.

    Raises:
        UsageError: if a metric is unknown.
    """
    parts = settings.get("outputs")
    if parts:
        return Comparison([Part(**part) for part in parts])
    return metric_named(str(settings["metric"]), probabilities=bool(settings["probabilities"]))


def _in_rows(output: Tensor, *, by_position: bool, alike: bool) -> Tensor:
    """An output as rows to average over: of positions, of samples, or single values if nothing else matches."""
    if by_position:
        return output.flatten(0, -2)
    return output if alike else output.flatten()


def floor_of(powers: Tensor) -> float:
    """The smallest squared norm that a relative error divides by, from the squared norms of all samples [samples]."""
    typical = float(torch.quantile(powers.double(), 0.75)) or float(powers.double().mean())
    return max(1e-30, FLOOR * typical)


def spread(metric: Metric, outputs: Sequence[Tensor], masks: Sequence[Tensor | None]) -> float:
    """How far an output's values on single samples are from their mean, by `metric`: the error of a model that ignores its input.

    Args:
        metric: the metric of one output.
        outputs: that output on several batches.
        masks: the masks of the batches.
    """
    alike = len({output.shape[1:] for output in outputs}) == 1  # batches that are a single sample may have any number of rows
    by_position = isinstance(metric, KLDivergence) or (not alike and len({output.shape[-1] for output in outputs}) == 1)
    mean = torch.cat([_in_rows(output.detach().float(), by_position=by_position, alike=alike) for output in outputs])
    if isinstance(metric, KLDivergence):
        mean = mean if metric.probabilities else torch.softmax(mean, -1)
        center = mean.mean(0) if metric.probabilities else mean.mean(0).clamp(min=1e-30).log()
    else:
        center = mean.masked_fill(mean.isinf(), torch.nan).nanmean(0).nan_to_num()
    errors = [
        metric.errors(metric.prepare([output], mask), [torch.where(output.isinf(), output, center.expand(output.shape).to(output.dtype))])
        for output, mask in zip(outputs, masks, strict=True)
    ]
    return float(torch.cat(errors).mean())
