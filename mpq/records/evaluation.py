"""An evaluation: metrics of the reference next to those of the quantized model. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from mpq.notebook import html_page
from mpq.reading.fields import Size, Text
from mpq.shown import cut, figure

if TYPE_CHECKING:
    import pandas as pd

_LONGEST = 200  # characters of the figures on one line


@dataclass(frozen=True)
class Figure:
    """One line of an evaluation.

    Args:
        name: for people and programs: "kl_divergence", "top1_agreement", "accuracy", ...
        quantized: of the quantized model.
        reference: of the unquantized model; None if the metric compares the two.
        stderr: standard error of `quantized` over samples; NaN if it has none.
    """

    name: str
    quantized: float
    reference: float | None = None
    stderr: float = math.nan


@dataclass(frozen=True, repr=False)
class Evaluation:
    """All metrics of one evaluation.

    Args:
        figures: the metrics, in display order.
        samples: number of samples.
        source: of the samples.
        caution: why errors on other data may be larger; empty if nothing suggests so.
        notes: samples that a figure leaves out.
    """

    figures: tuple[Figure, ...]
    samples: int
    source: str
    caution: str | None = None
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Figure:
        """The metric called `name`.

        Raises:
            KeyError: if there is none.
        """
        return {figure.name: figure for figure in self.figures}[name]

    def __repr__(self) -> str:
        told = ", ".join(f"{each.name} {figure(each.quantized)}" for each in self.figures)
        return f"<Evaluation of {self.samples:,} samples: {cut(told, _LONGEST)}>"

    def _repr_html_(self) -> str:
        """For notebooks: all figures."""
        rows = [[each.name, figure(each.reference), figure(each.quantized, each.stderr)] for each in self.figures]
        return html_page(f"Evaluation of {self.samples:,} samples of {self.source}", ["metric", "reference", "quantized"], rows)

    def frame(self) -> pd.DataFrame:
        """One row per metric: name, reference, quantized, stderr."""
        import pandas as pd

        columns = ("name", "reference", "quantized", "stderr")
        return pd.DataFrame([{key: getattr(figure, key) for key in columns} for figure in self.figures])

    def to_dict(self) -> dict[str, Any]:
        """A JSON object; values that are not finite are null."""
        rows = [{key: _finite(value) for key, value in row.items()} for row in self.frame().to_dict("records")]
        said: dict[str, Any] = {} if self.caution is None else {"caution": self.caution}
        said |= {"notes": list(self.notes)} if self.notes else {}
        return {"samples": self.samples, "source": self.source, "figures": rows, **said}


class FigureFacts(Struct):
    """A figure in a file."""

    name: Text
    quantized: float | None
    reference: float | None = None
    stderr: float | None = None


class EvaluationFile(Struct):
    """What `Evaluation.to_dict` gives, in a file."""

    samples: Size
    source: Text
    figures: list[FigureFacts]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
