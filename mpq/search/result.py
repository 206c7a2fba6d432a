"""The result of a search: a plan, the finalists, and the reason. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpq.notebook import html_page
from mpq.records.plan import Plan
from mpq.search.final_decision import Finalist
from mpq.shown import bits_cell, figure

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class SearchResult:
    """A plan and how it was found.

    Args:
        plan: the plan, with its evidence.
        finalists: all finalists, in the order of the stages; empty if nothing was measured.
        reason: why this plan was chosen.
        measurements: whole plans measured on calibration samples in this run.
        notes: further remarks.
    """

    plan: Plan
    finalists: tuple[Finalist, ...]
    reason: str
    measurements: int
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<SearchResult: {repr(self.plan)[1:-1]}; chosen: {self.reason}>"

    def _repr_html_(self) -> str:
        """For notebooks: the plan, why it was chosen, and the finalists."""
        rows = [finalist_cells(row) for row in self.rows()]
        heads = ["finalist", "bits per weight", "predicted", "calibration", "held-out"]
        return self.plan._repr_html_() + (html_page(f"chosen: {self.reason}", heads, rows) if rows else "")

    def frame(self) -> pd.DataFrame:
        """One row per finalist: name, uniform, effective_bits, predicted, and calibration and held_out with their standard errors.

        Empty if nothing was measured; `plan.frame()` has the layers.
        """
        import pandas as pd

        return pd.DataFrame(self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """The contents of `frame`, row by row."""
        return [
            {"name": (row := each.row()).pop("name"), "uniform": each.uniform, **row, "effective_bits": each.effective_bits}
            for each in self.finalists
        ]


def finalist_cells(row: Mapping[str, Any]) -> list[str]:
    """A row of `SearchResult.frame` as strings: name, bits, predicted, calibration, held-out."""
    return [
        f"uniform {row['name']}" if row["uniform"] else str(row["name"]),
        bits_cell(row["effective_bits"]),
        figure(row["predicted"]),
        figure(row["calibration"], row["calibration_stderr"]),
        figure(row["held_out"], row["held_out_stderr"]),
    ]
