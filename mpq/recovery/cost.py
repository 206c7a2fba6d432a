"""Estimates the cost of a step in advance, so that the limit on work is the same on every machine.

Work is counted in floating-point operations (a multiplication and an addition are two; those in float64 count twice), memory in bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from mpq.calibration.input_moments import plain_kernels
from mpq.data.dataset import Data
from mpq.models.running.operations import operations
from mpq.records.layer import Layer

SET_BYTES = 2 << 30  # memory for one set of layers
LEAST_SAMPLES = 8  # if there are that many
_SHARE = 0.125  # of the work allowed: the limit for the part of a set's cost that does not depend on the samples


@dataclass(frozen=True)
class SetCost:
    """What it costs to quantize one set of layers, that share their input, for the inputs that they will meet.

    Args:
        columns: of the widest of them.
        memory: bytes at the peak, with the inputs of all samples.
        fixed: operations independent of the number of samples: solving and quantizing.
        moving: operations over all samples: their outer products.
    """

    columns: int
    memory: int
    fixed: float
    moving: float


@dataclass(frozen=True)
class Affordable:
    """What fits into the work allowed.

    Args:
        samples: how many to use.
        left: why sets of layers are skipped, by their number.
    """

    samples: int
    left: dict[int, str]


def forward_operations(module: nn.Module, layers: Iterable[Layer], data: Data) -> float:
    """Operations of one forward pass for one sample; at least two for each weight of `layers`. One batch is run."""
    batch = data.batches[0]
    with plain_kernels(module):
        counted = operations(module, batch)
    return max(counted / batch.size, 2.0 * sum(layer.weights for layer in layers))


def set_cost(layers: Sequence[Layer], groups: Sequence[int], values: Sequence[int], kept_bytes: int) -> SetCost:
    """The cost of one set.

    Args:
        layers: the set.
        groups: groups of rows of each layer with separate inputs.
        values: numbers that each layer meets over all samples.
        kept_bytes: of these in memory.
    """
    columns = [layer.matrix[1] for layer in layers]
    squares = [group * width**2 for group, width in zip(groups, columns, strict=True)]
    solving = sum(6.0 * square * width for square, width in zip(squares, columns, strict=True))
    quantizing = sum(24.0 * layer.matrix[0] * layer.matrix[1] ** 2 for layer in layers)
    return SetCost(
        max(columns),
        24 * sum(squares) + 40 * max(squares) + kept_bytes,  # sums and means of two moments for each; then one solve in float64 at a time
        solving + quantizing,
        sum(4.0 * met * width for met, width in zip(values, columns, strict=True)),
    )


def affordable(
    costs: Sequence[SetCost], one_pass: float, samples: int, work: float, *, memory: int = SET_BYTES, blocks: int = 0
) -> Affordable:
    """Which sets of layers to process, and on how many samples, to stay within the work allowed.

    Args:
        costs: of all sets, in order.
        one_pass: operations of a forward pass over all samples.
        samples: number available.
        work: operations allowed.
        memory: bytes allowed for one set.
        blocks: of the model, each of which is passed once (`recovery/walk.py`); without any, each set needs a pass from the start.
    """
    left = {number: reason for number, cost in enumerate(costs) if (reason := _too_large(cost, work, memory))}
    done = [cost for number, cost in enumerate(costs) if number not in left]
    fixed, moving = sum(cost.fixed for cost in done), sum(cost.moving for cost in done)
    moving += one_pass * (1 + len(costs) / 2 / max(1, blocks) + bool(blocks))  # a pass stops as soon as the set's inputs are known
    most = int(min(samples, samples * (work - fixed) / moving)) if work > fixed else 0
    if most < min(LEAST_SAMPLES, samples):
        needed = fixed + moving * min(LEAST_SAMPLES, samples) / samples
        reason = f"all sets of layers together would take {needed:.2g} operations, and {work:.2g} are allowed (--tune-work)"
        return Affordable(0, {**dict.fromkeys(range(len(costs)), reason), **left})
    return Affordable(most, left)


def _too_large(cost: SetCost, work: float, memory: int) -> str | None:
    if cost.memory > memory:
        return f"rows of {cost.columns:,} weights would take {cost.memory / 1e9:.2g} GB of memory, and {memory / 1e9:.2g} GB are allowed"
    if cost.fixed > _SHARE * work:
        allowed = f"{_SHARE * work:.2g} are allowed for one set of layers (an eighth of --tune-work)"
        return f"rows of {cost.columns:,} weights would take {cost.fixed:.2g} operations, and {allowed}"
    return None
