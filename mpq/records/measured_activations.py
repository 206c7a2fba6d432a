"""What an analysis measured of a group of tensors between layers: a line of its file. No torch.

{"activation": "layer1.0.conv2", "scheme": "a8", "tensors": [{"readers": ["conv.2"], "scale": 0.02, "zero_point": 0}],
 "methods": ["mse"], "seen": [[0.0, 6.9]], "counts": [[...]], "costs": [[0.0, 3e-05]], "layers": ["layer1.0.conv2"],
     "work": 2359296, "errors": [1.2e-05, ...]}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Annotated, Any

from msgspec import Meta, Struct

from mpq.reading.fields import Figure, Name, Number, Size, Text
from mpq.records.activations import ActivationGroup, Groups, RoundedTensor, TensorFacts
from mpq.records.activations import Scheme as ActivationScheme


class ActivationLine(Struct):
    """A measurement of a group: one error per sample, null where an output was not finite."""

    activation: Name
    scheme: ActivationScheme
    tensors: Annotated[list[TensorFacts], Meta(min_length=1)]
    errors: list[Figure | None]
    layers: list[Name] = []
    work: Size = 0
    methods: list[Text] = []
    seen: list[tuple[Number, Number]] = []
    counts: list[list[Size]] = []
    costs: list[tuple[Number, Number]] = []


@dataclass(frozen=True)
class MeasuredGroup:
    """A group and its error.

    Args:
        name: of the group.
        group: its tensors, with the ranges that were chosen.
        layers: that read it.
        work: multiplications of these layers for one sample.
        errors: per sample, in the unit of the metric; None where not finite.
        methods: what chose each range.
        seen: the least and the greatest value of each tensor in calibration.
        counts: of the values of each tensor in equal parts of that range.
        costs: the mean squared error of clipping, and that of rounding, of each tensor with a fixed range.
    """

    name: str
    group: ActivationGroup
    layers: tuple[str, ...]
    work: int
    errors: tuple[float | None, ...]
    methods: tuple[str, ...] = ()
    seen: tuple[tuple[float, float], ...] = ()
    counts: tuple[tuple[int, ...], ...] = ()
    costs: tuple[tuple[float, float], ...] = ()

    @property
    def readers(self) -> list[str]:
        """All readers of its tensors."""
        return self.group.readers

    @property
    def mean(self) -> float:
        """Mean error; infinite where an output was not finite."""
        return math.inf if None in self.errors else fmean(each for each in self.errors if each is not None)

    @property
    def stderr(self) -> float:
        """Standard error of the mean; NaN for a single sample."""
        known = [each for each in self.errors if each is not None]
        return stdev(known) / math.sqrt(len(known)) if len(known) > 1 else math.nan

    def to_line(self) -> dict[str, Any]:
        """The JSON object of its line."""
        methods = {"methods": list(self.methods)} if self.methods else {}
        seen = {"seen": [list(each) for each in self.seen], "counts": [list(each) for each in self.counts]}
        costs = {"costs": [list(each) for each in self.costs]} if self.costs else {}
        rest = {**seen, **costs, "layers": list(self.layers), "work": self.work, "errors": list(self.errors)}
        return {"activation": self.name, **self.group.to_dict(), **methods, **rest}


Measured = dict[tuple[str, str], MeasuredGroup]
"""By name and scheme."""


def measured_group(record: Mapping[str, Any]) -> MeasuredGroup:
    """The measurement in a validated line."""
    tensors = tuple(RoundedTensor(tuple(each["readers"]), each.get("scale"), each.get("zero_point")) for each in record["tensors"])
    return MeasuredGroup(
        record["activation"],
        ActivationGroup(record["scheme"], tensors),
        tuple(record.get("layers", ())),
        int(record.get("work", 0)),
        tuple(record["errors"]),
        tuple(record.get("methods", ())),
        tuple((low, high) for low, high in record.get("seen", ())),
        tuple(map(tuple, record.get("counts", ()))),
        tuple((clipping, rounding) for clipping, rounding in record.get("costs", ())),
    )


def groups_of(measured: Mapping[str, MeasuredGroup]) -> Groups:
    """The groups alone, by name."""
    return {name: each.group for name, each in measured.items()}


def activation_lines(finish: Mapping[str, Any] | None, measured: Measured) -> list[str]:
    """What an analysis says of its activations: how many, the worst ones, and the self-check."""
    found = (finish or {}).get("activations")
    if not found:
        return []
    lines = []
    for scheme, check in found.get("check", {}).items():
        ratio = check["sum"] / check["together"] if check["together"] > 0 else math.nan
        off = "" if math.isnan(ratio) else f"; their single errors sum up to {check['sum']:.3g}, {ratio:.2f} times as much"
        groups = f"{check['groups']} group{'s' * (check['groups'] != 1)}"
        lines.append(f"activations in {scheme}: {groups}, all together have an error of {check['together']:.3g}{off}")
    if not lines:
        return ["activations: no tensor can be an integer"]
    worst = sorted(measured.values(), key=lambda each: -each.mean)[:3]
    return [
        *lines,
        "activations with the largest errors: " + ", ".join(f"{each.name} {each.group.scheme} {each.mean:.3g}" for each in worst),
    ]
