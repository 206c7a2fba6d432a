"""A stand-in for the real model: errors that do not simply add up, with noise over samples, the same for the same plan."""

import hashlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from mpq.records.sensitivity import Errors, Sensitivity
from mpq.schemes import Scheme


class FakeMeasurer:
    """Measures plans; `tried` are those measured on calibration samples, in order."""

    def __init__(self, table: Sensitivity, *, noise: float = 0.05, stop_after: int | None = None) -> None:
        self.table, self.noise, self.stop_after = table, noise, stop_after
        self.tried: list[dict[str, str]] = []

    def calibration(self, schemes: Mapping[str, Scheme]) -> Errors:
        if self.stop_after is not None and len(self.tried) >= self.stop_after:
            raise KeyboardInterrupt
        self.tried.append({name: str(scheme) for name, scheme in schemes.items()})
        return self._errors(schemes, "calibration", 24)

    def held_out(self, schemes: Mapping[str, Scheme]) -> Errors:
        return self._errors(schemes, "held out", 16)

    def _errors(self, schemes: Mapping[str, Scheme], part: str, count: int) -> Errors:
        singles = np.array([self.table.mean(name, scheme) for name, scheme in schemes.items()])
        together = float(singles.sum() + 0.5 * (singles[1:] * singles[:-1]).sum() ** 0.5)
        seed = hashlib.sha256(f"{part} {sorted(map(str, schemes.items()))}".encode()).digest()
        own, shared = np.random.default_rng(list(seed[:8])), np.random.default_rng(7)
        return together * shared.lognormal(0, 0.5, count) * own.lognormal(0, self.noise, count)


class FakeMeasurerInParts(FakeMeasurer):
    """The same, eight samples at a time; `seen` counts samples."""

    seen = 0

    def calibration_parts(self, schemes: Mapping[str, Scheme]) -> Iterator[Errors]:
        errors = self.calibration(schemes)
        for start in range(0, len(errors), 8):
            self.seen += 8
            yield errors[start : start + 8]


def whole(measurer: FakeMeasurer) -> Callable[[Mapping[str, Scheme]], list[Errors]]:
    """All samples in one part."""
    return lambda schemes: [measurer.calibration(schemes)]
