"""Determines the samples of a batch, by running its rows together and alone.

Rows of the leading axis are samples if each gives the same outputs alone as with others. If not, because rows are time steps, nodes of a
graph or words in bags, another axis may count the samples, or the whole batch is one sample. Differences within the rounding of kernels for
different batch sizes do not count, nor do those at padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import methodcaller

import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.data.masks import with_masks
from mpq.errors import DataError, ModelError
from mpq.models.running.choose_comparison import compared_by_default
from mpq.models.running.forward import accepted, forward, named
from mpq.models.running.kept_state import changed_state, copied, kept_state, restore_state
from mpq.models.running.positions import in_pieces
from mpq.models.running.sample_lists import by_sample, may_have_lists, same_shapes, sample_lists, stacked, without_place

_TOLERANCE = 1e-4  # tolerance for a row's difference, relative to the rows; larger for 16-bit models
_STEPS = 16  # multiples of the outputs' own precision
_MORE_ROWS = 8  # samples compared if two differ
_HUGE = 1e4  # such values mask others, and would hide their differences


@dataclass(frozen=True)
class Rows:
    """Whether rows are samples.

    Args:
        problem: why they are not; empty if they are.
        output_axes: outputs whose samples are along a different axis than in the inputs, by name.
        listed: paths of lists in the outputs that have one value for each sample.
        unlike: whether these values differ in shape, so that only one sample can run at a time.
    """

    problem: str = ""
    output_axes: Mapping[str, int] = field(default_factory=dict)
    listed: tuple[str, ...] = ()
    unlike: bool = False


def examine_rows(module: nn.Module, batch: Batch, *, mask: str | None = None) -> Rows:
    """Whether each sample of `batch` gives the same outputs alone as with others; with a single sample, this is assumed.

    Args:
        module: in eval mode; its state is restored afterwards.
        batch: its first and last sample are run together and alone, and more of them if they differ. For a model with different outputs
            each time, nothing can be concluded; it is refused later.
        mask: the input that says which positions are data; None looks for one.
    """
    (batch,), _ = with_masks([batch], mask, parameters=list(accepted(module)))
    if batch.size < 2:
        return _lists_of_one(module, batch)
    found = _compared(module, batch.select([0, batch.size - 1]))
    if found.problem and batch.size > 2:
        step = max(1, (batch.size - 1) // (_MORE_ROWS - 1))
        found = _compared(module, batch.select(list(range(0, batch.size, step))[-_MORE_ROWS:]))
    if found.listed and not found.unlike and batch.size > 2:
        other = _of_another_shape(_raw(module, batch), found.listed)
        found = found if other is None else _compared(module, batch.select([0, other]))
    return found if not found.problem or _is_repeatable(module, batch) else Rows(listed=found.listed, unlike=found.unlike)


def examine_lists(module: nn.Module, batch: Batch, *, mask: str | None = None) -> Rows:
    """Like `examine_rows`, for rows that are certainly samples: the lists that have one value for each of them."""
    if batch.size > 1 and not may_have_lists(_raw(module, batch.narrow(0, 1))):
        return Rows()
    return replace(examine_rows(module, batch, mask=mask), problem="", output_axes={})


def others_matter(module: nn.Module, batch: Batch) -> bool:
    """Whether outputs of a batch that cannot be cut also change for other rows if only the first row changes."""
    indices = [1, *range(1, batch.size)]
    before, after = _raw(module, batch), _raw(module, batch.select(indices))
    return any(
        len(one) != batch.size or one.shape != other.shape or _difference([one[1:]], [other[1:]]) > _tolerance(one)
        for one, other in ((before[name], after[name]) for name in compared_by_default(before) if name in after)
    )


def _lists_of_one(module: nn.Module, batch: Batch) -> Rows:
    """The lists that have two entries if the only sample of `batch` runs twice in one call."""
    if batch.whole:
        return Rows()
    try:
        alone = _raw(module, batch)
        twice = _raw(module, batch.select([0, 0])) if may_have_lists(alone) else {}
    except (DataError, ModelError):  # only one sample at a time
        return Rows()
    return Rows(listed=sample_lists(twice, [alone, alone]))


def _compared(module: nn.Module, together: Batch) -> Rows:
    try:
        joint = _raw(module, together)
        alone = [_raw(module, together.narrow(place, 1)) for place in range(together.size)]
    except (DataError, ModelError) as error:
        return Rows(str(error))
    lists = sample_lists(joint, alone)
    return _rows_of_lists(joint, alone, lists, together) if lists else _rows(joint, alone, together)


def _rows_of_lists(joint: dict[str, Tensor], alone: list[dict[str, Tensor]], lists: tuple[str, ...], together: Batch) -> Rows:
    """Like `_rows`, for outputs with lists that have one value for each sample.

    Values of different shapes need an input that may say so, such as lengths or a mask. From floating-point inputs of one shape alone, the
    shape depends on computed values, as with detections, and the output is refused by name later.
    """
    values = by_sample(joint, lists)
    unlike = [name for name, found in values.items() if not same_shapes(found, together.size)]
    if unlike and all(tensor.is_floating_point() for tensor in together.tensors):
        return Rows()
    single = [by_sample(one, lists) for one in alone]
    worst = max((_between(values[name], [found.get(name, [])[:1] for found in single]) for name in unlike), default=0.0)
    if worst > 0:
        return Rows(_influence(worst), listed=lists, unlike=True)

    def others(outputs: dict[str, Tensor], samples: int) -> dict[str, Tensor]:
        return stacked({name: one for name, one in outputs.items() if without_place(name, lists)[0] not in unlike}, lists, samples)

    rest = others(joint, together.size)
    if unlike and not any(one.ndim for one in rest.values()):
        return Rows(listed=lists, unlike=True)
    return replace(_rows(rest, [others(one, 1) for one in alone], together), listed=lists, unlike=bool(unlike))


def _of_another_shape(outputs: dict[str, Tensor], lists: tuple[str, ...]) -> int | None:
    """The first sample whose value in a list has another shape than that of the first sample; None if there is none."""
    places = (place for values in by_sample(outputs, lists).values() for place, one in enumerate(values) if one.shape != values[0].shape)
    return min(places, default=None)


def _rows(joint: dict[str, Tensor], alone: list[dict[str, Tensor]], together: Batch) -> Rows:
    """Whether outputs of a batch have a row for each sample, which is what the sample gives alone."""
    axes = {name: _sample_axes(joint[name], [one[name] for one in alone if name in one], together) for name in joint}
    heads = compared_by_default(joint)
    if any(len(axes[name]) > 1 for name in heads):
        return Rows("an output compares the samples of a batch with each other")
    chosen = {name: found[0] for name, found in axes.items() if found}
    if not any(name in chosen for name in heads):
        pooled = all(joint[name].shape == one[name].shape for one in alone for name in heads if name in one)
        return Rows("no output has one row per sample") if pooled else Rows()
    other = {name: axis for name, axis in chosen.items() if axis != together.axis}
    worst = max((_apart(joint[name], alone, name, chosen[name], together.mask) for name in heads if name in chosen), default=0.0)
    if worst > 0:
        return Rows(_influence(worst))
    return Rows("", other)


def _influence(worst: float) -> str:
    return f"its rows influence each other (running one alone changes its outputs by {worst:.2g}, relative to their size)"


def _sample_axes(joint: Tensor, alone: list[Tensor], batch: Batch) -> list[int]:
    """The axes along which an output has one entry per sample."""
    if any(one.ndim != joint.ndim for one in alone) or not alone:
        return []
    return [axis for axis, size in enumerate(joint.shape) if size == batch.size and all(one.shape[axis] == 1 for one in alone)]


def _apart(joint: Tensor, alone: list[dict[str, Tensor]], name: str, axis: int, mask: Tensor | None) -> float:
    """How far the rows of an output are from the outputs of the samples alone, relative to their size; 0 within the tolerance."""
    pairs = [
        _kept(row, one[name].movedim(axis, 0)[0], None if mask is None else mask[place])
        for place, (row, one) in enumerate(zip(joint.movedim(axis, 0), alone, strict=True))
    ]
    return _between([left for left, _ in pairs], [[right] for _, right in pairs])


def _between(rows: list[Tensor], alone: list[list[Tensor]]) -> float:
    """How far rows are from the single value that each sample gives alone; 0 within the tolerance."""
    if [[row.shape] for row in rows] != [[one.shape for one in values] for values in alone]:
        return 1.0
    found = _difference(rows, [one for (one,) in alone])
    return found if found > _tolerance(rows[0]) else 0.0


def _kept(row: Tensor, alone: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The part of a row that counts, in a batch and alone; a batch may be as long as its longest sample."""
    if mask is None or not row.ndim:
        return row, alone
    shortest = min(len(row), len(alone))
    if row.shape[1:] != alone.shape[1:] or mask.ndim != 1 or len(row) > len(mask) or bool(mask[shortest:].any()):
        return row, alone
    counted = mask[:shortest]
    return row[:shortest][counted], alone[:shortest][counted]


def _difference(left: list[Tensor], right: list[Tensor]) -> float:
    """The norm of the differences over the norm of the values; equal entries, including infinite ones, have no difference."""
    pairs = [pair for one, other in zip(left, right, strict=True) for pair in zip(in_pieces(one), in_pieces(other), strict=True)]
    if not all(torch.equal(one.isnan(), other.isnan()) for one, other in pairs):  # as where a row alone has no spread to divide by
        return 1.0
    only_seen = any(bool((other.abs() < _HUGE).any()) for _, other in pairs)
    change = size = 0.0
    for one, other in ((one.double(), other.double()) for one, other in pairs):
        counted = other.abs() < _HUGE if only_seen else torch.ones_like(other, dtype=torch.bool)
        same = (one == other) | (one.isnan() & other.isnan()) | ~counted
        change += float((one - other).masked_fill(same, 0.0).square().sum())
        size += float(other.masked_fill(~counted, 0.0).nan_to_num().square().sum())
    return math.sqrt(change) / max(1e-30, math.sqrt(size)) if change else 0.0


def _tolerance(output: Tensor) -> float:
    return max(_TOLERANCE, _STEPS * torch.finfo(output.dtype).eps)


def _is_repeatable(module: nn.Module, batch: Batch) -> bool:
    """Whether the model gives the same outputs twice."""
    first, again = (_raw(module, batch.narrow(0, 1)) for _ in range(2))
    return all(name in again and _difference([one], [again[name]]) <= _tolerance(one) for name, one in first.items())


def _raw(module: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The outputs that the model returns in its current state."""
    given = replace(batch, args=copied(batch.args), kwargs=copied(batch.kwargs), whole=True, mask=None, listed=())
    before = kept_state(module)
    try:
        return {name: output[0].clone() for name, output in named(forward(module, given)).items()}
    finally:
        restore_state(module, changed_state(module, before))


def arrangements(batch: Batch) -> Iterator[tuple[Callable[[Batch], Batch], str]]:
    """Other arrangements of samples than along the leading axis, likeliest first, each with a note."""
    if any(batch.with_states().sampled) and batch.with_states().sampled != batch.sampled:
        yield Batch.with_states, "states of recurrent layers are cut along axis 1"
    for axis in (1, 2):
        if any(tensor.ndim > axis and tensor.shape[axis] > 1 for tensor in batch.tensors):
            told = f"samples are counted along axis {axis}, because they are not independent along axis 0; --batch-axis chooses another"
            yield methodcaller("along", axis), told
