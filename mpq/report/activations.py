"""The tensors between layers in the report: each with its values, the range that was chosen, and what rounding it costs."""

from __future__ import annotations

from dataclasses import dataclass

from mpq.formats.activations import LEVELS
from mpq.records.activations import RoundedTensor, summary
from mpq.records.measured_activations import MeasuredGroup, activation_lines
from mpq.report.report_input import Subject

HEIGHT = 40


@dataclass(frozen=True)
class TensorRow:
    """One tensor.

    Args:
        readers: the operators that read it.
        range: that was chosen, for people.
        method: what chose it.
        clipping: mean squared error of clipping; None where the range is not fixed.
        rounding: that of rounding.
        bars: heights of its histogram, 0 to HEIGHT; the square root of the counts, since most values are small.
        marks: where the range begins and ends, as shares of the histogram's width; None outside.
    """

    readers: str
    range: str
    method: str
    clipping: float | None
    rounding: float | None
    bars: tuple[int, ...]
    marks: tuple[float, ...]


@dataclass(frozen=True)
class ActivationRow:
    """One group: whether the plan has it, its error, and its tensors."""

    name: str
    scheme: str
    is_on: bool
    error: float | None
    stderr: float | None
    work: int | None
    tensors: tuple[TensorRow, ...]


def activation_rows(subject: Subject) -> list[ActivationRow]:
    """All measured groups, else those of the plan."""
    chosen = subject.activations
    if subject.table is not None and subject.table.activations:
        return [_measured(each, is_on=_is_on(subject, each)) for each in subject.table.activations.values()]
    return [
        ActivationRow(name, group.scheme, True, None, None, None, tuple(_bare(tensor) for tensor in group.tensors))
        for name, group in chosen.items()
    ]


def activation_lines_of(subject: Subject) -> list[str]:
    """What the analysis says of them, and how many the plan has."""
    told = [f"In this plan: {summary(subject.activations)}."] if subject.schemes else []
    if subject.table is None:
        return told
    return [*told, *(f"{line[0].upper()}{line[1:]}." for line in activation_lines(subject.table.finish, subject.table.activations))]


def _is_on(subject: Subject, measured: MeasuredGroup) -> bool:
    group = subject.activations.get(measured.name)
    return group is not None and group.scheme == measured.group.scheme


def _measured(each: MeasuredGroup, *, is_on: bool) -> ActivationRow:
    rows = tuple(_tensor(each, place) for place in range(len(each.group.tensors)))
    return ActivationRow(each.name, each.group.scheme, is_on, each.mean, each.stderr, each.work, rows)


def _bare(tensor: RoundedTensor) -> TensorRow:
    return TensorRow(", ".join(tensor.readers), _range(tensor), "", None, None, (), ())


def _tensor(each: MeasuredGroup, place: int) -> TensorRow:
    tensor, bare = each.group.tensors[place], _bare(each.group.tensors[place])
    counts = each.counts[place] if place < len(each.counts) else ()
    clipping, rounding = each.costs[place] if place < len(each.costs) else (None, None)
    method = each.methods[place] if place < len(each.methods) else ""
    marks = _marks(tensor, each.seen[place]) if place < len(each.seen) else ()
    return TensorRow(bare.readers, bare.range, method, clipping, rounding, _bars(counts), marks)


def _bars(counts: tuple[int, ...]) -> tuple[int, ...]:
    largest = max(counts, default=0)
    return tuple(round(HEIGHT * (count / largest) ** 0.5) for count in counts) if largest else ()


def _ends(tensor: RoundedTensor) -> tuple[float, float] | None:
    if tensor.scale is None or tensor.zero_point is None:
        return None
    return 0.0 - tensor.scale * tensor.zero_point, tensor.scale * (LEVELS - tensor.zero_point)


def _range(tensor: RoundedTensor) -> str:
    ends = _ends(tensor)
    return "per token" if ends is None else f"{ends[0]:.4g} to {ends[1]:.4g}"


def _marks(tensor: RoundedTensor, seen: tuple[float, float]) -> tuple[float, ...]:
    ends, (low, high) = _ends(tensor), seen
    if ends is None or not high > low:
        return ()
    places = ((end - low) / (high - low) for end in ends)
    return tuple(round(place, 4) for place in places if 0 < place < 1)
