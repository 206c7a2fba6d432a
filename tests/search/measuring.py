"""A stand-in for the real model: errors that do not simply add up, with noise over samples, the same for the same plan."""

import hashlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from mpq.errors import ModelError
from mpq.formats.scheme import Scheme
from mpq.records.sensitivity import Errors, Sensitivity
from mpq.records.slopes import Slopes


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


class FakeMeasurerWithSlopes(FakeMeasurer):
    """A quadratic model: each (layer, scheme) moves an output of a few dimensions, an error is the squared length of all moves together.

    `asked` are the plans whose slopes were asked for, in order.
    """

    def __init__(self, table: Sensitivity, *, stop_after: int | None = None, reason: str = "") -> None:
        super().__init__(table, noise=0.01, stop_after=stop_after)
        generator = np.random.default_rng(0)
        self.reason, self.asked = reason, list[dict[str, str]]()
        self.moves: dict[tuple[str, Scheme], np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
        for name in table.header.candidates:
            common = generator.standard_normal(4)  # a layer's schemes err in similar directions, and layers in company
            for scheme in table.header.candidates[name]:
                direction = 1.0 + common + 0.3 * generator.standard_normal(4)
                self.moves[name, scheme] = direction / np.linalg.norm(direction) * table.mean(name, scheme) ** 0.5

    def _errors(self, schemes: Mapping[str, Scheme], part: str, count: int) -> Errors:
        total = np.sum([self.moves[pair] for pair in schemes.items()], axis=0)
        return float(total @ total) * np.random.default_rng([count]).lognormal(0, 0.2, count)

    def slopes(self, schemes: Mapping[str, Scheme]) -> Slopes:
        if self.reason:
            raise ModelError(self.reason)
        self.asked.append({name: str(scheme) for name, scheme in schemes.items()})
        total = np.sum([self.moves[pair] for pair in schemes.items()], axis=0)
        first, second = {}, {}
        for (name, scheme), move in self.moves.items():
            change = move - self.moves[name, schemes[name]]
            first[name, scheme] = np.full(24, 2 * float(total @ change))
            second[name, scheme] = np.full(24, float(change @ change))
        return Slopes(first, second, cost=5)
