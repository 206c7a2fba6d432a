"""The base class of all methods of analysis.

`mpq analyze` decides what to measure (`prepare`), opens the journal, lets the method fill in missing values, measures a few whole plans to
see how well the table predicts them (`selfcheck`), and closes the journal with a final line.

A method fills `context.table` by passing every record to `context.record`; values that are not recorded are lost if the process is killed.
The table may already have some of the values; the method must not compute these again.
Where several processes do an analysis together, all of them call it with equal tables: `context.ranks` divides the work, and each
records all results.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from mpq.analyze.task import Prepared
from mpq.models.running.fake_quantized import Variants
from mpq.models.running.ranks import Alone, Ranks
from mpq.models.sources.loaded import LoadedModel
from mpq.records.layer import Layer
from mpq.records.sensitivity import Sensitivity

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what was done)."""


@dataclass
class Context:
    """The inputs of a method.

    Args:
        model: the unquantized model.
        prepared: the settled analysis.
        table: filled in place.
        variants: the quantized weights.
        save: writes records to the journal, if there is one.
        on_progress: called as the work proceeds.
        cost: the work that the method reports, for example forward passes.
        notes: what the user should know about how the values were found.
        part: names of the layers whose errors are wanted; None for all.
        ranks: the processes that do this analysis together.
        blocks: modules that run again in the backward pass, to save memory.
    """

    model: LoadedModel
    prepared: Prepared
    table: Sensitivity
    variants: Variants
    save: Callable[[Sequence[dict[str, Any]]], None]
    on_progress: Progress
    cost: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    part: frozenset[str] | None = None
    ranks: Ranks = field(default_factory=Alone)
    blocks: Sequence[nn.Module] = ()

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers whose errors are wanted, in model order."""
        return tuple(layer for layer in self.table.layers if self.part is None or layer.name in self.part)

    def record(self, records: Sequence[dict[str, Any]]) -> None:
        """Save records, then add them to the table."""
        self.save(records)
        for one in records:
            self.table.read(one)


class Method(ABC):
    """Finds the errors of (layer, scheme) pairs."""

    name: ClassVar[str]

    @abstractmethod
    def run(self, context: Context) -> None:
        """Fill in the missing values of `context.table`."""


def finite(errors: Tensor) -> list[float | None]:
    """Values for a record: six significant digits, None where not finite."""
    return [float(f"{value:.6g}") if abs(value) != float("inf") and value == value else None for value in errors.tolist()]
