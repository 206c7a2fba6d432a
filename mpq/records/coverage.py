"""How much of a model and its data an analysis covered: written at its end, and printed as one line. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Coverage:
    """Shares of a model and its data.

    Args:
        layers: searched layers.
        searched_bytes: of their weights, in the dtype of the model.
        left_out: other tensors of the model: norms, biases, buffers, layers that were ignored or never reached, weights that are not in its
            state dict.
        left_out_bytes: their bytes.
        outputs: compared outputs.
        outputs_returned: outputs in floating point that the model returns.
        positions: positions of the calibration samples that count; 0 if no sample has a mask, so that all count.
        positions_given: all of their positions, padding included; 0 if no sample has a mask.
        calibration: samples to measure on.
        held_out: samples to decide on.
    """

    layers: int
    searched_bytes: int
    left_out: int
    left_out_bytes: int
    outputs: int
    outputs_returned: int
    positions: int
    positions_given: int
    calibration: int
    held_out: int

    def to_dict(self) -> dict[str, int]:
        """The JSON object."""
        return asdict(self)

    @property
    def line(self) -> str:
        """One line for people."""
        total = self.searched_bytes + self.left_out_bytes
        weights = f"{self.layers} layers searched, {_percent(self.searched_bytes, total)} of the model's bytes"
        others = f"{self.left_out} tensors left out, {_percent(self.left_out_bytes, total)}"
        outputs = f"{self.outputs} of {self.outputs_returned} outputs compared"
        positions = f"{_percent(self.positions, self.positions_given)} of the positions" if self.positions_given else "all positions"
        samples = f"{self.calibration} calibration, {self.held_out} held-out samples"
        return f"coverage: {weights}; {others}; {outputs}; {positions} counted; {samples}"


def coverage_lines(finish: Mapping[str, Any] | None) -> list[str]:
    """The coverage line of a finished analysis; none if it is unfinished, or older than this record."""
    found = (finish or {}).get("coverage")
    return [Coverage(**{each.name: found[each.name] for each in fields(Coverage)}).line] if found else []


def _percent(part: int, whole: int) -> str:
    """With one digit; "100%" and "0%" mean exactly all and nothing."""
    if part in (0, whole):
        return "100%" if part else "0%"
    share = 100 * part / whole
    return "under 0.1%" if share < 0.05 else "over 99.9%" if share >= 99.95 else f"{share:.1f}%"
