"""Values recorded in one reference pass, so that a changed layer can be measured without a full pass."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from mpq.data.dataset import Batch
from mpq.records.layer import Layer


class Tape(ABC):
    """Recorded values for replays; a tape has one batch at a time."""

    @abstractmethod
    def record(self, batch: Batch) -> None:
        """Run the reference on `batch` and record what replays need."""

    @abstractmethod
    def run(self, batch: Batch, layer: Layer) -> tuple[Tensor, ...]:
        """The outputs for the recorded batch with `layer` changed in place by the caller."""

    @abstractmethod
    def work(self, layer: Layer) -> float:
        """Share of a whole forward pass, in floating-point operations, that a replay for `layer` runs; 1.0 before anything is recorded."""

    @abstractmethod
    def clear(self) -> None:
        """Forget the recorded batch."""
