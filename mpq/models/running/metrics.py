"""Metrics: the error of a changed model's outputs against the reference's, one value per sample, zero if they are equal.

    kl_divergence   nats; KL(reference || quantized) over the last dimension, mean over the positions of a sample that count
    relative_mse    squared error over the reference's squared norm, per sample, mean over the outputs
    top1            share of positions whose arg max differs
    cosine          1 - cosine similarity of a sample's outputs; zero if the reference's have no direction

Metrics are prepared once per batch of the reference, so a measurement only processes its own outputs. If the batch has a mask, padding does
not count (`data/masks.py`).

Classes whose logit is far below the largest of its row (-inf, the dtype's minimum, -1e4) are suppressed: the reference gives them
probability zero, so they carry no information. KL is computed over the other classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from mpq.data.batch import Batch
from mpq.errors import ModelError, NumericsError
from mpq.models.running.logits import allowed_classes, by_position, centred, cross, joined, parts_of
from mpq.models.running.positions import finite, flat, kept_values, position_weights, random_signs

Outputs = Sequence[Tensor]
Prepared = tuple[Any, ...]
"""Tensors with one row per sample, possibly in nested tuples."""
_SMALLEST = 1e-150  # norm of outputs, of which float64 still holds the square


class Metric(ABC):
    """An error per sample; `prepare` is called once per batch, `errors` once per measurement."""

    name: str
    unit: ClassVar[str] = ""
    has_projection: ClassVar[bool] = False
    """Whether `project` works, as second-order methods need."""

    @abstractmethod
    def prepare(self, reference: Outputs, mask: Tensor | None = None) -> Prepared:
        """What to keep of the reference's outputs; `mask` says which positions count, bool [samples, positions]."""

    def prepare_batch(self, reference: Outputs, batch: Batch) -> Prepared:
        """Like `prepare`, for metrics that also look at the batch."""
        return self.prepare(reference, batch.mask)

    @abstractmethod
    def errors(self, prepared: Prepared, outputs: Outputs) -> Tensor:
        """The error of each sample, float64 [samples]; not finite if an output is not."""

    def project(self, prepared: Prepared, outputs: Outputs, generator: torch.Generator) -> Tensor:
        """A random scalar; the square of its derivative along a small change has the metric's mean error over the samples as its
        expectation.

        Args:
            prepared: the prepared reference for the same samples.
            outputs: the outputs around which the metric is expanded.
            generator: source of the random signs.

        Raises:
            ModelError: if the metric has no quadratic form.
        """
        raise ModelError(f"metric {self.name} has no gradient: use --method measure, or --metric kl_divergence or relative_mse")


class KLDivergence(Metric):
    """KL(reference || quantized) in nats, with logits (or probabilities) in the last dimension of the first output.

    Args:
        probabilities: whether the output is probabilities.
        over_positions: whether the classes are the positions themselves, such as the start of an answer; then padding is not a class.
    """

    name = "kl_divergence"
    unit = "nats"
    has_projection = True

    def __init__(self, *, probabilities: bool = False, over_positions: bool = False) -> None:
        self.probabilities, self.over_positions = probabilities, over_positions

    def prepare(self, reference: Outputs, mask: Tensor | None = None) -> Prepared:
        """Probabilities [samples, positions, classes] and negative entropy [samples, positions].

        If there is padding, also the weight of each position [samples, positions]; if classes are suppressed, also the allowed classes,
        bool [samples, positions, classes].
        """
        output = by_position(reference[0])
        weights = position_weights(output, reference[0], mask)
        allowed = joined([allowed_classes(self._logits(output[:, rows])) for rows in parts_of(output)], output)
        if mask is not None and self.over_positions:
            allowed = mask.unsqueeze(1) if allowed is None else allowed & mask.unsqueeze(1)
        probabilities = torch.empty(output.shape, device=output.device)
        entropies = []
        for rows, own, logits in self._in_parts(output, allowed):
            found = torch.softmax(logits if own is None else logits.masked_fill(~own, -torch.inf), -1)
            probabilities[:, rows] = found
            entropies.append(cross(found, logits, own))
        kept = probabilities, torch.cat(entropies, 1)
        return (*kept, *(extra for extra in (weights, allowed) if extra is not None))

    def errors(self, prepared: Prepared, outputs: Outputs) -> Tensor:
        """KL of each sample, averaged over the positions that count."""
        probabilities, negative_entropy = prepared[:2]
        weights, allowed = _extras(prepared[2:])
        output = by_position(outputs[0])
        if output.shape != probabilities.shape:
            raise shape_error(outputs[0].shape, probabilities.shape)
        crossed = [cross(probabilities[:, rows], logits, own) for rows, own, logits in self._in_parts(output, allowed)]
        divergence = (negative_entropy - torch.cat(crossed, 1)).double()
        return divergence.mean(-1) if weights is None else (kept_values(divergence, weights > 0) * weights).sum(-1)

    def project(self, prepared: Prepared, outputs: Outputs, generator: torch.Generator) -> Tensor:
        """Random signs times the square root of the Fisher information, along the logits."""
        weights, allowed = _extras(prepared[2:])
        logits = centred(self._logits(by_position(outputs[0])), allowed)
        if not bool(torch.isfinite(logits).all()):
            raise NumericsError(
                "the unquantized model gives NaN or infinity on the calibration data: check the data's scale and the weights"
            )
        masked = logits.detach() if allowed is None else logits.detach().masked_fill(~allowed, -torch.inf)
        probabilities = torch.softmax(masked, -1)
        noise = probabilities.sqrt() * random_signs(logits.shape, generator).to(logits.device)
        direction = noise - probabilities * noise.sum(-1, keepdim=True)
        samples, positions = logits.shape[:2]
        if weights is None:
            scalar: Tensor = (direction * logits).sum() / (2 * samples * positions) ** 0.5
            return scalar
        weighted: Tensor = (direction * logits * weights.float().sqrt().unsqueeze(-1)).sum() / (2 * samples) ** 0.5
        return weighted

    def _in_parts(self, output: Tensor, allowed: Tensor | None) -> Iterator[tuple[slice, Tensor | None, Tensor]]:
        """Some positions at a time, with their allowed classes and their centred logits."""
        for rows in parts_of(output):
            own = None if allowed is None else allowed.expand(output.shape)[:, rows]
            yield rows, own, centred(self._logits(output[:, rows]), own)

    def _logits(self, values: Tensor) -> Tensor:
        """Logits in float32."""
        return values.float().clamp(min=1e-30).log() if self.probabilities else values.float()


class RelativeMSE(Metric):
    """Squared error over the reference's squared norm, per sample, mean over the outputs.

    Args:
        floor: the smallest squared norm to divide by, so that a nearly zero sample does not outweigh all others.
    """

    name = "relative_mse"
    has_projection = True

    def __init__(self, *, floor: float = 1e-30) -> None:
        self.floor = floor

    def prepare(self, reference: Outputs, mask: Tensor | None = None) -> Prepared:
        """The outputs, each [samples, values], zero at padding; then the mask, if there is one."""
        kept = tuple(flat(output, mask) for output in reference)
        return kept if mask is None else (*kept, mask)

    def errors(self, prepared: Prepared, outputs: Outputs) -> Tensor:
        """Relative squared error of each sample."""
        expected, mask = _split(prepared)
        shares = []
        for before, output in zip(expected, outputs, strict=True):
            found, wanted = _without_infinities(_alike(flat(output, mask), before), before)
            power = wanted.double().square().sum(-1).clamp(min=self.floor)
            shares.append((found - wanted).double().square().sum(-1) / power)
        return torch.stack(shares).mean(0)

    def project(self, prepared: Prepared, outputs: Outputs, generator: torch.Generator) -> Tensor:
        """Random signs over the norm of each sample's output."""
        _, mask = _split(prepared)
        total: Tensor = torch.zeros((), device=outputs[0].device)
        for output in outputs:
            values = finite(flat(output, mask))
            noise = random_signs(values.shape, generator).to(values.device) / values.detach().norm(dim=-1, keepdim=True).clamp(
                min=self.floor**0.5
            )
            total = total + (noise * values).sum()
        return total.div((len(outputs[0]) * len(outputs)) ** 0.5)


class Top1Disagreement(Metric):
    """Share of positions at which the argmax over the first output's last dimension differs."""

    name = "top1"

    def prepare(self, reference: Outputs, mask: Tensor | None = None) -> Prepared:
        """Argmax [samples, positions]; then the weights of positions and the allowed classes, like for the divergence."""
        choices = self._choices(reference)
        extras = position_weights(choices, reference[0], mask), allowed_classes(by_position(reference[0]))
        return (choices, *(extra for extra in extras if extra is not None))

    def errors(self, prepared: Prepared, outputs: Outputs) -> Tensor:
        """Share of each sample's positions that changed."""
        weights, allowed = _extras(prepared[1:])
        changed = (_alike(self._choices(outputs), prepared[0]) != prepared[0]).double()
        sound = by_position(outputs[0]).isfinite()
        sound = (sound if allowed is None else sound | ~allowed).all(-1)
        if weights is None:
            return torch.where(sound.all(-1), changed.mean(-1), torch.nan)
        return torch.where((sound | (weights == 0)).all(-1), (changed * weights).sum(-1), torch.nan)

    def _choices(self, outputs: Outputs) -> Tensor:
        return outputs[0].argmax(-1).reshape(len(outputs[0]), -1)


class CosineDistance(Metric):
    """1 - cosine similarity of all outputs of a sample; zero for samples whose reference is all zero or infinite, or empty."""

    name = "cosine"

    def prepare(self, reference: Outputs, mask: Tensor | None = None) -> Prepared:
        """All outputs [samples, values], and the mask, if there is one."""
        kept = (torch.cat([flat(output, mask) for output in reference], -1),)
        return kept if mask is None else (*kept, mask)

    def errors(self, prepared: Prepared, outputs: Outputs) -> Tensor:
        """Cosine distance of each sample."""
        (expected,), mask = _split(prepared)
        found = _alike(torch.cat([flat(output, mask) for output in outputs], -1), expected)
        found, expected = _without_infinities(found, expected)
        distance = 1 - torch.nn.functional.cosine_similarity(expected.double(), found.double(), dim=-1, eps=_SMALLEST)
        return torch.where(has_direction(expected) | ~distance.isfinite(), distance, 0.0)


def has_direction(values: Tensor) -> Tensor:
    """Whether each row of values [samples, values] has any but zeros and infinities, bool [samples]; only such rows have a cosine."""
    return finite(values).any(-1)


def undirected(output: str, samples: int, of: int) -> str:
    """The beginning of a note on samples without a direction."""
    return f"output '{output}' is all zeros or infinities in {samples} of {of} samples, where the cosine is undefined"


def shape_error(found: Sequence[int], expected: Sequence[int]) -> ModelError:
    """The error for a quantized model whose output shape differs from the reference's."""
    return ModelError(
        f"an output's shape depends on its values ({list(expected)} in the reference, {list(found)} with quantized weights), so the two "
        "cannot be compared: choose outputs of fixed shape with --outputs, or give a metric of your own"
    )


def _extras(kept: Prepared) -> tuple[Tensor | None, Tensor | None]:
    """The weights of positions and the allowed classes from the prepared tensors after the values; each is None if all count."""
    weights = next((extra for extra in kept if extra.dtype != torch.bool), None)
    return weights, next((extra for extra in kept if extra.dtype == torch.bool), None)


def _split(prepared: Prepared) -> tuple[Prepared, Tensor | None]:
    """The prepared outputs and the mask."""
    masked = prepared[-1].dtype == torch.bool
    return (prepared[:-1], prepared[-1]) if masked else (prepared, None)


def _without_infinities(found: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors, with zero where they are infinite in the same way: such values are not computed, but put there, as by masks."""
    same = expected.isinf() & (found == expected)
    return (found.masked_fill(same, 0.0), expected.masked_fill(same, 0.0)) if bool(same.any()) else (found, expected)


def _alike(found: Tensor, expected: Tensor) -> Tensor:
    if found.shape != expected.shape:
        raise shape_error(found.shape, expected.shape)
    return found
