"""Merge: sensitivity files of one analysis become one, by layer, scheme and sample. No torch.

All files have the same first line. Their measurements are put in the order in which one analysis makes them, and read one after the
other: what is known is dropped, what differs from it is refused. Parts (`analyze/parts.py`) measure pairs whose error is negligible on all
samples; where the files cover every pair, these lines are left out, as the undivided analysis does not make them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpq.errors import FormatError, MismatchError, UsageError
from mpq.evidence.negligible import negligible
from mpq.files import atomic_write, journal_line, journal_lines
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.records.duplicates import new_figures
from mpq.records.layer import Layer
from mpq.records.sensitivity import ABSENT, NONE, Sensitivity, read_sensitivity
from mpq.records.sensitivity_file import record_line
from mpq.shown import cut

_SHOWN = 40  # characters of a value
Record = dict[str, Any]


@dataclass(frozen=True)
class Merged:
    """What was written.

    Args:
        path: the file.
        table: what it holds; never finished, since what looks at all layers is still to be done.
        repeated: number of values that were in several files, and count once.
    """

    path: Path
    table: Sensitivity
    repeated: int

    @property
    def covered(self) -> int:
        """Number of pairs of layer and scheme with figures."""
        return len(self.table.errors)


def merge(paths: Sequence[Path | str], output: Path | str) -> Merged:
    """Write the joined measurements of sensitivity files to `output`; `mpq analyze` with this output goes on from there.

    Args:
        paths: files of the same analysis, finished or not.
        output: the file to write; it may be one of them.

    Raises:
        UsageError: if there are no files.
        FormatError: if one is damaged, or two have different values for the same layer, scheme and sample.
        MismatchError: if one is of another analysis; the message names the difference.
        OutputError: if the file cannot be written.
    """
    files = [Path(path) for path in paths]
    if not files:
        raise UsageError("no files to merge: name the sensitivity files of the parts")
    tables = [read_sensitivity(path) for path in files]
    for path, table in zip(files[1:], tables[1:], strict=True):
        _refuse_other(files[0], tables[0], path, table)
    whole = Sensitivity(tables[0].header, path=Path(output))
    wanted = [(layer, scheme) for layer in whole.layers for scheme in whole.header.candidates[layer.name]]
    complete = all(any((layer.name, scheme) in table.errors for table in tables) for layer, scheme in wanted)
    repeated = 0
    with atomic_write(Path(output)) as file:
        file.write(next(journal_lines(files[0]))[1].rstrip(b"\n") + b"\n")
        for record, path in _kept(_in_order(files, wanted), whole, prune=complete):
            count = len(record["errors"])
            fresh = _new(record, whole, path)
            repeated += count - len(fresh["errors"])
            if fresh["errors"]:
                whole.read(fresh)
                file.write(journal_line(fresh))
    return Merged(Path(output), whole, repeated)


def _in_order(files: Sequence[Path], wanted: Sequence[tuple[Layer, Scheme]]) -> list[tuple[Record, Path]]:
    """All measurements, as an analysis makes them: those with products first, then by sample, layer and scheme."""
    places = {(layer.name, scheme): place for place, (layer, scheme) in enumerate(wanted)}
    found: list[tuple[tuple[bool, int, int], Record, Path]] = []
    for path in files:
        counts: dict[tuple[str, Scheme], int] = {}
        lines = journal_lines(path, absent=ABSENT)
        next(lines)
        for number, line in lines:
            record = dict(record_line(line, f"{path}, line {number}"))
            if "errors" not in record:
                continue
            pair = (str(record["layer"]), parse_scheme(record["scheme"]))
            record["first"] = first = int(record.get("first", counts.get(pair, 0)))
            counts[pair] = max(counts.get(pair, 0), first + len(record["errors"]))
            if pair in places:
                found.append((("products" not in record, first, places[pair]), record, path))
    return [(record, path) for _, record, path in sorted(found, key=lambda each: each[0])]


def _kept(records: Sequence[tuple[Record, Path]], whole: Sensitivity, *, prune: bool) -> Iterator[tuple[Record, Path]]:
    """Without the measurements that the undivided analysis would not have made."""
    samples = int(whole.header.data.get("samples", {}).get("calibration", 0))
    layers = {layer.name: layer for layer in whole.layers}
    dropped: set[tuple[str, Scheme]] = set()
    begun = 0
    for record, path in records:
        first, measured = record["first"], "products" not in record
        if prune and measured and first > begun:
            pairs = [(layers[name], scheme) for name, scheme in whole.errors if (name, scheme) not in whole.products]
            dropped |= {(layer.name, scheme) for layer, scheme in negligible(whole, pairs, first, samples)}
            begun = first
        if (record["layer"], parse_scheme(record["scheme"])) not in dropped:
            yield record, path


def _new(record: Record, whole: Sensitivity, path: Path) -> Record:
    """What a measurement adds to the table."""
    pair = (str(record["layer"]), parse_scheme(record["scheme"]))
    known = whole.rows.get(pair, whole.errors.get(pair, NONE))
    try:
        errors, products = new_figures(record, known, whole.products.get(pair, NONE))
    except FormatError as error:
        raise FormatError(f"{path}: {error}; the files disagree") from error
    fresh = {"layer": record["layer"], "scheme": record["scheme"], "first": len(known), "errors": errors}
    return fresh | ({"products": products} if "products" in record else {})


def _refuse_other(first: Path, expected: Sensitivity, path: Path, found: Sensitivity) -> None:
    if found.sha256 == expected.sha256:
        return
    name, before, now = next(_differences(expected.header.to_dict(), found.header.to_dict(), ""), ("first line", "one", "another"))
    raise MismatchError(f"{path} is not of the same analysis as {first}: {name} is {_short(now)}, there {_short(before)}")


def _differences(one: Any, other: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    """Where two headers differ, as names such as "data.seed", with both values."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys((*one, *other)):
            yield from _differences(one.get(key), other.get(key), f"{name}.{key}" if name else str(key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, pair in enumerate(zip(one, other, strict=True)):
            named = one[place].get("name", place) if isinstance(one[place], Mapping) else place
            yield from _differences(*pair, f"{name}.{named}")
    elif one != other:
        yield name, one, other


def _short(value: object) -> str:
    return cut("absent" if value is None else f"{len(value)} entries" if isinstance(value, (list, Mapping)) else str(value), _SHOWN)
