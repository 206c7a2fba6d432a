"""The base of all methods of analysis.

`mpq analyze` settles what is to be found (`prepare`), opens the journal, asks the method for what is missing, measures a few whole
plans to see how well the table predicts them (`selfcheck`), and closes the journal with a line that says so.

A method fills `context.table`, and hands every record to `context.record` first: what is not recorded is lost when the process is killed.
It may be called on a table that holds some of the figures already, and must not find these again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from mpq.analyze.task import Prepared
from mpq.models.running.fake_quantized import Variants
from mpq.models.sources.loaded import LoadedModel
from mpq.records.sensitivity import Sensitivity

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what was done)."""


@dataclass
class Context:
    """What a method works with.

    Args:
        model: the unquantized model.
        prepared: what was settled.
        table: to be filled in place.
        variants: the quantized weights.
        save: writes records to the journal, if there is one.
        on_progress: told as the work goes on.
        cost: what the method reports of its own work, for example forward passes.
        notes: what the user should know of how figures were found.
    """

    model: LoadedModel
    prepared: Prepared
    table: Sensitivity
    variants: Variants
    save: Callable[[Sequence[dict[str, Any]]], None]
    on_progress: Progress
    cost: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

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
        """Fill what `context.table` misses."""


def finite(errors: Tensor) -> list[float | None]:
    """Figures for a record: six significant digits, None where not finite."""
    return [float(f"{value:.6g}") if abs(value) != float("inf") and value == value else None for value in errors.tolist()]
