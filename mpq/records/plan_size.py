"""How big a plan is. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """How big a plan is.

    Args:
        effective_bits: bits per weight of the searched layers, scales included.
        layer_bytes: bytes of the searched layers.
        file_bytes: bytes of the whole artifact, header included.
        file_effective_bits: bits per weight of the whole artifact, over all of the model's parameters.
    """

    effective_bits: float
    layer_bytes: int
    file_bytes: int
    file_effective_bits: float

    @property
    def unsearched_bytes(self) -> int:
        """Bytes of the artifact that are not those of the searched layers: unquantized tensors, the program and the header."""
        return self.file_bytes - self.layer_bytes

    def to_dict(self) -> dict[str, int | float]:
        """A JSON object."""
        return {**vars(self), "unsearched_bytes": self.unsearched_bytes}
