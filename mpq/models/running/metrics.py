"""Metrics: the error of a changed model's outputs against the reference's, one figure per sample, zero when they are equal.

    kl_divergence   nats; KL(reference || quantized) over the last dimension, mean over the positions of a sample
    relative_mse    squared error over the reference's squared norm, per sample, mean over the outputs
    top1            share of positions whose arg max differs
    cosine          1 - cosine similarity of a sample's outputs

Metrics are prepared once per batch of the reference, so that a measurement pays only for its own outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mpq.models.running.metric_registry import METRICS

Outputs = Sequence[Tensor]


class Metric(ABC):
    """An error per sample; `prepare` is called once per batch, `errors` once per measurement."""

    name: ClassVar[str]
    unit: ClassVar[str] = ""

    @abstractmethod
    def prepare(self, reference: Outputs) -> tuple[Tensor, ...]:
        """What is kept of the reference's outputs."""

    @abstractmethod
    def errors(self, prepared: tuple[Tensor, ...], outputs: Outputs) -> Tensor:
        """The error of each sample, float64 [samples]; not finite where an output is not."""


class KLDivergence(Metric):
    """KL(reference || quantized) in nats, with logits (or probabilities) in the last dimension of the first output."""

    name = "kl_divergence"
    unit = "nats"

    def __init__(self, *, probabilities: bool = False) -> None:
        self.probabilities = probabilities

    def prepare(self, reference: Outputs) -> tuple[Tensor, ...]:
        """Probabilities [samples, positions, classes] and negative entropy [samples, positions]."""
        logits = self.logits(reference)
        probabilities = torch.softmax(logits, -1)
        return probabilities, _cross(probabilities, logits)

    def errors(self, prepared: tuple[Tensor, ...], outputs: Outputs) -> Tensor:
        """KL of each sample, mean over its positions."""
        probabilities, negative_entropy = prepared
        return (negative_entropy - _cross(probabilities, self.logits(outputs))).double().mean(-1)

    def logits(self, outputs: Outputs) -> Tensor:
        """The first output as centred float32 logits [samples, positions, classes]."""
        first = outputs[0].float()
        if self.probabilities:
            first = first.clamp(min=1e-30).log()
        logits = first.reshape(len(first), -1, first.shape[-1])
        return logits - logits.mean(-1, keepdim=True)  # only differences count; centred, the sums below lose fewer digits


class RelativeMSE(Metric):
    """Squared error over the reference's squared norm, per sample, mean over the outputs."""

    name = "relative_mse"

    def prepare(self, reference: Outputs) -> tuple[Tensor, ...]:
        """The outputs, each [samples, values]."""
        return tuple(_flat(output) for output in reference)

    def errors(self, prepared: tuple[Tensor, ...], outputs: Outputs) -> Tensor:
        """Relative squared error of each sample."""
        shares = []
        for expected, output in zip(prepared, outputs, strict=True):
            power = expected.double().square().sum(-1).clamp(min=1e-30)
            shares.append((_flat(output) - expected).double().square().sum(-1) / power)
        return torch.stack(shares).mean(0)


class Top1Disagreement(Metric):
    """Share of positions at which the largest value of the first output's last dimension stands elsewhere."""

    name = "top1"

    def prepare(self, reference: Outputs) -> tuple[Tensor, ...]:
        """Arg max [samples, positions]."""
        return (self._choices(reference),)

    def errors(self, prepared: tuple[Tensor, ...], outputs: Outputs) -> Tensor:
        """Share of each sample's positions that changed."""
        share = (self._choices(outputs) != prepared[0]).double().mean(-1)
        return torch.where(torch.isfinite(_flat(outputs[0])).all(-1), share, torch.nan)

    def _choices(self, outputs: Outputs) -> Tensor:
        return outputs[0].argmax(-1).reshape(len(outputs[0]), -1)


class CosineDistance(Metric):
    """1 - cosine similarity of all outputs of a sample."""

    name = "cosine"

    def prepare(self, reference: Outputs) -> tuple[Tensor, ...]:
        """All outputs [samples, values]."""
        return (torch.cat([_flat(output) for output in reference], -1),)

    def errors(self, prepared: tuple[Tensor, ...], outputs: Outputs) -> Tensor:
        """Cosine distance of each sample."""
        found = torch.cat([_flat(output) for output in outputs], -1)
        return 1 - torch.nn.functional.cosine_similarity(prepared[0].double(), found.double(), dim=-1)


def metric_for(kind: str, name: str | None = None) -> Metric:
    """The metric called `name`, or the one that fits outputs of a kind; see `models/running/output_kind.py` for the kinds.

    Raises:
        UsageError: if there is no such metric; the message lists them.
    """
    return metric_named(name or ("relative_mse" if kind == "other" else "kl_divergence"), probabilities=kind == "probabilities")


def metric_named(name: str, *, probabilities: bool = False) -> Metric:
    """The metric called `name`; `probabilities` says that the model's outputs are probabilities rather than logits.

    Raises:
        UsageError: if there is none; the message lists them.
    """
    if name == KLDivergence.name:
        return KLDivergence(probabilities=probabilities)
    return METRICS.kind(name)()


def _cross(probabilities: Tensor, logits: Tensor) -> Tensor:
    """Expected log-probability [samples, positions]; both terms of the divergence go this way, so equal outputs give exactly zero."""
    return torch.einsum("spc,spc->sp", probabilities, logits) - torch.logsumexp(logits, -1)


def _flat(output: Tensor) -> Tensor:
    return output.float().reshape(len(output), -1)
