"""The unquantized model's outputs on the samples to train on: computed once, in memory or, where they do not fit, on disk.

Of logits with many classes, the disk gets the likeliest classes and their probabilities; all other classes count as one. Merging classes
never raises a divergence (the data processing inequality: Cover and Thomas 2006, section 2.8), so the loss is a lower bound of the
divergence. How far it is below is measured before training starts. The samples kept aside are judged by the whole divergence.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mpq.data.dataset import Data
from mpq.errors import DataError
from mpq.models.memory.available import available_bytes
from mpq.models.memory.offload import Offload
from mpq.models.running.comparison import Comparison
from mpq.models.running.forward import forward
from mpq.models.running.metrics import KLDivergence, Metric, Outputs, Prepared
from mpq.models.running.positions import kept_values, mask_of_output
from mpq.models.running.reference import CACHE_BYTES

CLASSES = 64  # kept of each distribution
_SHARE = 0.5  # of the available memory, for outputs


@dataclass(frozen=True)
class Teacher:
    """How the outputs are kept.

    Args:
        metric: the loss.
        memory: bytes of outputs in memory at most.
        offload: where they are on disk; None keeps them in memory.
        note: for people; empty if they are in memory.
    """

    metric: Metric
    memory: int
    offload: Offload | None = None
    note: str = ""


class LikeliestClasses(Metric):
    """The divergence between distributions whose classes are the likeliest of the reference, and one for all others.

    Args:
        divergence: of all classes.
        outer: what picks the output that it compares; None takes the first.
        classes: how many are kept.
    """

    name = KLDivergence.name

    def __init__(self, divergence: KLDivergence, outer: Comparison | None = None, *, classes: int = CLASSES) -> None:
        self._divergence, self._outer, self._classes = divergence, outer, classes

    def prepare(self, reference: Outputs, mask: Tensor | None = None) -> Prepared:
        """Probabilities and places of the likeliest classes [samples, positions, classes], and the weights of positions, if any."""
        picked, place = self._picked(reference), "positions" if self._outer is None else self._outer.parts[0].mask
        probabilities, _, *weights = self._divergence.prepare(picked, mask_of_output(mask, picked[0], place))
        likeliest = probabilities.topk(min(self._classes, probabilities.shape[-1] - 1), dim=-1)
        return (likeliest.values, likeliest.indices.int(), *weights)

    def errors(self, prepared: Prepared, outputs: Outputs) -> Tensor:
        """The divergence of each sample, averaged over the positions that count."""
        probabilities, places, *weights = prepared
        logits = self._logits(outputs)
        own, total = logits.gather(-1, places.long()), logits.logsumexp(-1)
        others = logits.scatter(-1, places.long(), -torch.inf).logsumexp(-1)
        rest = (1 - probabilities.sum(-1)).clamp(min=0)
        found = _weighted_logs(probabilities, own - total.unsqueeze(-1)).sum(-1) + _weighted_logs(rest, others - total)
        divergence = found.double()
        return (kept_values(divergence, weights[0] > 0) * weights[0]).sum(-1) if weights else divergence.mean(-1)

    def kept(self, prepared: Prepared) -> float:
        """The share of the probability that the likeliest classes have."""
        return float(prepared[0].sum(-1).mean())

    def _picked(self, outputs: Outputs) -> Outputs:
        return outputs if self._outer is None else self._outer.picked(outputs)

    def _logits(self, outputs: Outputs) -> Tensor:
        first = self._picked(outputs)[0].float()
        first = first.clamp(min=1e-30).log() if self._divergence.probabilities else first
        return first.reshape(len(first), -1, first.shape[-1])


def teacher_for(module: nn.Module, data: Data, metric: Metric, *, folder: Path | None) -> Teacher:
    """How to keep the outputs on `data`; runs one batch.

    Args:
        module: the unquantized model.
        data: the samples to train on.
        metric: of errors.
        folder: for what does not fit in memory; None keeps what fits and computes the rest again in each epoch.

    Raises:
        DataError: if the disk has too little room.
    """
    free = available_bytes()
    memory = CACHE_BYTES if free is None else min(CACHE_BYTES, int(_SHARE * free))
    batch = data.batches[0]
    outputs = forward(module, batch)
    whole = _bytes(metric.prepare_batch(outputs, batch)) * data.samples // batch.size
    if whole <= memory or folder is None:
        return Teacher(metric, memory)
    fewer = _likeliest(metric, outputs, batch.mask)
    chosen = fewer or metric
    prepared = chosen.prepare_batch(outputs, batch)
    needed, room = _bytes(prepared) * data.samples // batch.size, shutil.disk_usage(_existing(folder)).free
    many = f"the original's outputs on {data.samples:,} samples"
    if needed > room:
        free_room = f"{room / 1e9:.2g} GB are free at {folder}"
        raise DataError(f"{data.source}: {many} take {needed / 1e9:.2g} GB on disk, and {free_room}: give fewer with --num-samples")
    note = f"{many} would take {whole / 1e9:.2g} GB of memory, and {memory / 1e9:.2g} GB are allowed"
    how = f"they are on disk ({needed / 1e9:.2g} GB)"
    if fewer is not None:
        how += f", the {CLASSES} likeliest of {outputs[0].shape[-1]:,} classes of each, with {fewer.kept(prepared):.2%} of the probability"
    offload = Offload(folder, remedy="free some space, or choose another place with --output")
    return Teacher(chosen, memory, offload, f"{note}: {how}")


def _likeliest(metric: Metric, outputs: Outputs, mask: Tensor | None) -> LikeliestClasses | None:
    """The divergence of the likeliest classes, where that is possible and saves much."""
    outer = metric if isinstance(metric, Comparison) else None
    if outer is not None and (len(outer.parts) > 1 or outer.parts[0].weight != 1):
        return None
    inner = metric if outer is None else outer.metrics[0]
    if not isinstance(inner, KLDivergence) or inner.over_positions:
        return None
    picked = outputs if outer is None else outer.picked(outputs)
    suppressed = any(extra.dtype == torch.bool for extra in inner.prepare(picked, mask)[2:])
    return None if suppressed or picked[0].shape[-1] <= 4 * CLASSES else LikeliestClasses(inner, outer)


def _weighted_logs(shares: Tensor, logs: Tensor) -> Tensor:
    """Each share times the logarithm of its ratio to the other; zero where the share is."""
    counts = shares > 0
    return torch.where(counts, shares * (shares.clamp(min=1e-30).log() - torch.where(counts, logs, 0.0)), 0.0)


def _bytes(prepared: Prepared) -> int:
    return sum(tensor.nbytes for tensor in pytree.tree_leaves(prepared))


def _existing(folder: Path) -> Path:
    """The nearest folder above that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())
