"""How a quantized model is trained: what moves, for how long, and how fast."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from mpq.config import EPOCHS, LEVELS, Level
from mpq.data.dataset import Data
from mpq.errors import DataError, UsageError
from mpq.formats.scheme import Scheme
from mpq.recovery.trainable import Codes

_CODES: dict[Level, Codes] = {"scales": "none", "codes": "integers", "weights": "all"}
STEPS = 1000  # wanted, at least: codes move by small steps
LEAST_BATCH = 4
ASIDE, MOST_ASIDE = 0.1, 128  # of the training samples


@dataclass(frozen=True)
class TrainSettings:
    """What a training run depends on, besides the model and the data.

    Args:
        level: what moves. "scales": scales, biases and norms; "codes": the codes of integer formats, too; "weights": all codes.
        epochs: passes over the training samples.
        minutes: limit by the clock instead; the number of steps is set from the first ones, once.
        rate: a multiple of the usual learning rates; None finds one by short runs.
        labels: whether the right answers are half of the loss.
        batch_size: samples of a step; None takes small batches where there are few samples, for about `STEPS` steps.
        blocks: whether block reconstruction on the same samples comes first.
        end_to_end: whether training end to end follows, which needs all weights in memory.
        seed: of the order of samples and of the part that is kept aside.
    """

    level: Level
    epochs: int = EPOCHS
    minutes: float | None = None
    rate: float | None = None
    labels: bool = False
    blocks: bool = True
    end_to_end: bool = True
    batch_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise UsageError(f"'{self.level}' is not a level: give one of {', '.join(LEVELS)}")
        if self.epochs < 1:
            raise UsageError(f"{self.epochs} epochs is not a training length: give 1 or more")
        if self.minutes is not None and not 0 < self.minutes < float("inf"):
            raise UsageError(f"{self.minutes:g} minutes is not a training time: give a positive number")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise UsageError(f"a rate of {self.rate:g} trains nothing: give a positive number, such as 1")

    @property
    def codes(self) -> Codes:
        """Whose codes move."""
        return _CODES[self.level]

    @property
    def by_blocks(self) -> bool:
        """Whether block reconstruction comes first, which moves codes; alone, it moves what the level says."""
        return not self.end_to_end or (self.blocks and self.level != "scales")

    def size_for(self, samples: int, largest: int) -> int:
        """Samples of a step.

        Args:
            samples: that there are.
            largest: that the data has in a batch.
        """
        return self.batch_size or min(largest, max(LEAST_BATCH, self.epochs * samples // STEPS))

    def parts(self, data: Data) -> tuple[Data, Data]:
        """The samples to train on, in the batches of the steps, and those kept aside.

        Raises:
            DataError: if there are fewer than 2 samples.
        """
        if data.samples < 2:
            raise DataError(f"{data.source}: {data.samples} sample is too few to train on: give more")
        used, aside = data.split(min(ASIDE, MOST_ASIDE / data.samples), self.seed)
        size = self.size_for(used.samples, max(batch.size for batch in used.batches))
        return used if used.fixed_batch else used.rebatch(size), aside

    def after(self, seconds: float) -> TrainSettings:
        """What is left of the time, at least a tenth, after these seconds."""
        return self if self.minutes is None else replace(self, minutes=max(0.1 * self.minutes, self.minutes - seconds / 60))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def level_for(schemes: Iterable[Scheme]) -> tuple[Level, str]:
    """The level for these schemes, and why: the fewer bits, the more must move (BinaryConnect: Courbariaux et al. 2015).

    Above 2 bits the codes of integers move, if the samples kept aside agree: a rate of zero for codes is among those that are tried.
    """
    fewest = min((scheme.bits for scheme in schemes if not scheme.is_float), default=16)
    return "weights" if fewest <= 2 else "codes", f"the fewest bits of a layer are {fewest:g}"
