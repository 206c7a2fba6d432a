"""Tables and measurers without a model, for what needs thousands of plans."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Errors = np.ndarray[tuple[int], np.dtype[np.float64]]


class FakeMeasurer:
    """Errors that do not simply add up, the same for the same plan in every process.

    Args:
        table: the analysis.
        log: a file to which each measured plan is appended, so that plans measured twice are seen.
        seconds: that a measurement takes.
    """

    def __init__(self, table: Any, *, log: Path | None = None, seconds: float = 0.0) -> None:
        self._table, self._log, self._seconds = table, log, seconds

    def calibration(self, schemes: Mapping[str, Any]) -> Errors:
        """The error on each calibration sample."""
        plan = " ".join(f"{name}={scheme}" for name, scheme in schemes.items())
        self._write("begin", plan)
        time.sleep(self._seconds)
        found = self._errors(schemes, "calibration", 12)
        self._write("end", plan)
        return found

    def held_out(self, schemes: Mapping[str, Any]) -> Errors:
        """The error on each held-out sample."""
        return self._errors(schemes, "held out", 8)

    def _write(self, what: str, plan: str) -> None:
        if self._log is not None:
            line = f"{os.getpid()} {what} {hashlib.sha256(plan.encode()).hexdigest()[:16]}\n"
            file = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(file, line.encode())
            os.close(file)

    def _errors(self, schemes: Mapping[str, Any], part: str, count: int) -> Errors:
        singles = np.array([self._table.mean(name, scheme) for name, scheme in schemes.items()])
        together = float(singles.sum() + 0.5 * np.abs(singles[1:] * singles[:-1]).sum() ** 0.5)
        seed = hashlib.sha256(f"{part} {sorted(map(str, schemes.items()))}".encode()).digest()
        own, shared = np.random.default_rng(list(seed[:8])), np.random.default_rng(7)
        return np.asarray(together * shared.lognormal(0, 0.5, count) * own.lognormal(0, 0.05, count), dtype=np.float64)


def table_of(errors: Mapping[str, Mapping[str, float]], *, shape: tuple[int, int] = (24, 64)) -> Any:
    """A finished analysis: `errors` by layer and scheme, for layers of one shape."""
    from mpq.formats.scheme import parse_scheme
    from mpq.records.layer import Layer
    from mpq.records.sensitivity import Sensitivity
    from mpq.records.sensitivity_header import Rest, SensitivityHeader

    layers = tuple(Layer(name, (f"{name}.weight",), shape, (0,), "float32", "linear", (name,)) for name in errors)
    header = SensitivityHeader(
        model={"path": "model.pt2", "sha256": "a" * 64, "kind": "export"},
        data={"source": "data.pt", "sha256": "b" * 64, "description": "8 samples", "held_out": 0.25, "seed": 0},
        settings={"metric": "kl_divergence", "probabilities": False, "method": "measure", "quantizer": "rtn"},
        layers=layers,
        candidates={name: tuple(parse_scheme(text) for text in figures) for name, figures in errors.items()},
        rest=Rest(header_bytes=500, data_bytes=256, weights=40, original_bytes=160),
    )
    made = Sensitivity(header, finish={"cost": {}, "check": {}})
    for name, figures in errors.items():
        for text, figure in figures.items():
            made.add(name, parse_scheme(text), [figure, figure])
    return made


def falling_table(count: int, seed: int) -> Any:
    """Layers whose errors fall with every bit."""
    generator = np.random.default_rng(seed)
    texts = ("int2", "int4", "int4-g32", "int8", "fp16")
    return table_of(
        {f"layer{n}": dict(zip(texts, map(float, np.sort(generator.lognormal(0, 2, 5))[::-1]), strict=True)) for n in range(count)}
    )
