"""The rows of the report: every layer, every cell of the heat map, every block."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mpq.formats.scheme import Scheme
from mpq.records.rate_limits import LayerLimit, total_limit
from mpq.report.blocks import block_of
from mpq.report.colors import ordered
from mpq.report.report_input import Subject
from mpq.report.words import TIMES

LEVELS = 10
_DECADES = 4
NOISE = 2.0  # standard errors


@dataclass(frozen=True)
class Cell:
    """One layer at one scheme.

    Args:
        error: mean error.
        stderr: its standard error.
        bytes: size of the layer.
        level: color level, 0 to LEVELS - 1.
        noisy: whether the error is within NOISE standard errors of zero.
    """

    error: float
    stderr: float
    bytes: int
    level: int
    noisy: bool


@dataclass(frozen=True)
class LayerRow:
    """One layer of the report. Fields that depend on a chosen scheme or a measurement are None without it.

    Args:
        number: position in the model, from 1.
        name: of the layer.
        block: the block that it belongs to.
        operator: the operator that uses it.
        shape: for people.
        weights: number of weights.
        scheme: index of the chosen scheme, in the order of `Facts.schemes`.
        bits: bits per weight.
        bytes: size.
        error: the error of the chosen scheme.
        stderr: the standard error of that error.
        cells: one per scheme; None if it is not a candidate or not measured yet.
        pinned: whether the user fixed it.
        limit: the least bits per weight at which any code could have its output error.
    """

    number: int
    name: str
    block: str
    operator: str
    shape: str
    weights: int
    scheme: int | None
    bits: float | None
    bytes: int | None
    error: float | None
    stderr: float | None
    cells: tuple[Cell | None, ...]
    pinned: bool
    limit: float | None = None


@dataclass(frozen=True)
class Block:
    """Consecutive layers with one block name: bytes by scheme index, weights, and the number of layers."""

    name: str
    bytes: dict[int, int]
    weights: int
    layers: int

    @property
    def total(self) -> int:
        """Bytes of all its layers."""
        return sum(self.bytes.values())


@dataclass(frozen=True)
class Facts:
    """All rows. `heat` are the measured schemes, as indices of `schemes`; colors range from `least` to `greatest`."""

    schemes: tuple[Scheme, ...]
    heat: tuple[int, ...]
    rows: tuple[LayerRow, ...]
    blocks: tuple[Block, ...]
    least: float
    greatest: float

    @property
    def limit(self) -> tuple[float, float] | None:
        """Bits per weight of all layers with a known limit, and their limit; None without any."""
        total = total_limit(LayerLimit(row.name, row.weights, row.bits, row.limit) for row in self.rows if row.bits is not None)
        return None if total is None or total.least is None else (total.bits, total.least)

    @property
    def noisy(self) -> tuple[int, int]:
        """(number of values within noise of zero, number of all values)."""
        cells = [cell for row in self.rows for cell in row.cells if cell is not None]
        return sum(cell.noisy for cell in cells), len(cells)


def facts_of(subject: Subject) -> Facts:
    """Gather the rows of a subject."""
    measured = ordered(scheme for _, scheme in subject.table.errors) if subject.table else []
    schemes = tuple(ordered([*measured, *subject.drawn.values()]))
    least, greatest = _range(subject)
    rows = tuple(_row(subject, schemes, number, least, greatest) for number in range(len(subject.layers)))
    heat = tuple(index for index, scheme in enumerate(schemes) if scheme in measured)
    return Facts(schemes, heat, rows, tuple(_blocks(rows)), least, greatest)


def level_of(error: float, least: float, greatest: float) -> int:
    """Color level on a logarithmic scale from `least` to `greatest`; values that are not finite get the last level."""
    if not math.isfinite(error):
        return LEVELS - 1
    if error <= least or greatest <= least:
        return 0
    return min(LEVELS - 1, math.floor(math.log(error / least) / math.log(greatest / least) * LEVELS))


def _range(subject: Subject) -> tuple[float, float]:
    """The range of errors for colors: that of the table, limited to a number of powers of ten."""
    means = [subject.table.mean(*key) for key in subject.table.errors] if subject.table else []
    positive = [mean for mean in means if 0 < mean < math.inf]
    return (max(min(positive), max(positive) / 10**_DECADES), max(positive)) if positive else (0.0, 0.0)


def _row(subject: Subject, schemes: Sequence[Scheme], index: int, least: float, greatest: float) -> LayerRow:
    layer = subject.layers[index]
    scheme = subject.drawn.get(layer.name)
    bits = None if scheme is None else scheme.stored_bits(layer.matrix)
    error = subject.error(layer.name, scheme)
    return LayerRow(
        number=index + 1,
        name=layer.name,
        block=block_of(layer.name),
        operator="" if layer.operator == "other" else layer.operator,
        shape=f" {TIMES} ".join(map(str, layer.shape)),
        weights=layer.weights,
        scheme=None if scheme is None else schemes.index(scheme),
        bits=None if bits is None else bits / layer.weights,
        bytes=None if bits is None else bits // 8,
        error=None if error is None else error[0],
        stderr=None if error is None else error[1],
        cells=tuple(_cell(subject, index, each, least, greatest) for each in schemes),
        pinned=subject.plan is not None and layer.name in subject.plan.pinned,
        limit=subject.limits.get(layer.name),
    )


def _cell(subject: Subject, index: int, scheme: Scheme, least: float, greatest: float) -> Cell | None:
    layer = subject.layers[index]
    found = subject.error(layer.name, scheme)
    if found is None:
        return None
    error, stderr = found
    noisy = math.isfinite(stderr) and abs(error) <= NOISE * stderr
    return Cell(error, stderr, scheme.stored_bits(layer.matrix) // 8, level_of(error, least, greatest), noisy)


def _blocks(rows: Iterable[LayerRow]) -> Iterable[Block]:
    found: dict[str, list[LayerRow]] = {}
    for row in rows:
        if row.bytes is not None:
            found.setdefault(row.block, []).append(row)
    for name, members in found.items():
        taken: dict[int, int] = {}
        for row in sorted(members, key=lambda r: r.scheme or 0):
            assert row.scheme is not None
            assert row.bytes is not None
            taken[row.scheme] = taken.get(row.scheme, 0) + row.bytes
        yield Block(name, taken, sum(row.weights for row in members), len(members))
