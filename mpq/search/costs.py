"""Additional limits: the user's own cost by layer and scheme, and the memory of the loaded model. No torch.

A cost file is CSV with the columns `layer`, `scheme` and one column of numbers whose heading names the cost, for example `latency_ms`:

    layer,scheme,latency_ms
    conv1,int4-g32,0.12
    conv1,int8,0.10

The cost of a plan is the sum over its layers. A file of `mpq profile` also says what a call takes besides (`records/latency.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from mpq.budget import Budget
from mpq.errors import BudgetError, FormatError, SchemeError, UsageError
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.limits import SHOWN_TEXT
from mpq.reading.documents import Document, csv_rows, read_text
from mpq.records.latency import LatencyFacts, read_latency_facts
from mpq.records.loaded_size import loaded_bytes
from mpq.records.sensitivity import Sensitivity
from mpq.search.problem import Group, Limit
from mpq.shown import shown

MEMORY = "memory_bytes"
_MOST = 1e150  # so that a sum of these, and its square, are finite floats


def cost_limits(table: Sensitivity, groups: Sequence[Group], costs: Mapping[str, float], memory: str | None) -> tuple[Limit, ...]:
    """The limits of a search in addition to its size.

    Args:
        table: the analysis.
        groups: the groups of the problem.
        costs: limit for the total cost, by cost file.
        memory: limit for the memory of the loaded model with packed weights, for example "20MB"; None for no limit.

    Raises:
        FormatError: if a cost file cannot be read.
        UsageError: if it lacks a layer or a scheme that the search may use.
        BudgetError: if the memory limit cannot be read, or is smaller than the unquantized tensors.
    """
    found = [_of_file(Path(path), groups, limit) for path, limit in costs.items()]
    return (*found, *([_of_memory(table, groups, memory)] if memory is not None else []))


def _of_file(path: Path, groups: Sequence[Group], limit: float) -> Limit:
    facts, name, known = _read(path)
    rows = []
    for group in groups:
        missing = next(((layer, s) for o in group.options for layer, s in o.schemes.items() if (layer, s) not in known), None)
        if missing is not None:
            raise UsageError(
                f"{path} has no {name} for layer '{missing[0]}' under {missing[1]}: add the line {missing[0]},{missing[1]},NUMBER"
            )
        rows.append(tuple(sum(known[pair] for pair in option.schemes.items()) for option in group.options))
    limit, rest = float(limit), 0.0 if facts is None else facts.rest_ms
    if limit < rest:
        raise BudgetError(f"{name} of {limit:g} cannot be met: {rest:.3g} is spent outside of the layers ({path})")
    return Limit(name, limit, tuple(rows), rest)


def _of_memory(table: Sensitivity, groups: Sequence[Group], text: str) -> Limit:
    layers, rest, original = table.layers, table.header.rest, _original(table)
    weights = sum(layer.weights for layer in layers) + rest.weights
    limit = Budget(text).bytes(weights=weights, original_bytes=original + rest.original_bytes)
    if limit <= rest.original_bytes:
        raise BudgetError(f"memory {text} cannot be met: unquantized tensors take {rest.original_bytes:,} bytes of {limit:,}")
    return Limit(MEMORY, limit, tuple(_memory_of(table, group) for group in groups), rest.original_bytes)


def _memory_of(table: Sensitivity, group: Group) -> tuple[float, ...]:
    """Bytes of the group's layers in the loaded model, by option."""
    matrices, original = {layer.name: layer.matrix for layer in table.layers}, _original(table)
    return tuple(loaded_bytes(o.schemes, matrices, original_bytes=original, rest_bytes=0, form="packed") for o in group.options)


def _original(table: Sensitivity) -> int:
    return sum(layer.original_bytes for layer in table.layers)


def costs_of(group: Group, table: Sensitivity, files: Sequence[Path], *, memory: bool) -> dict[str, tuple[float, ...]]:
    """The costs of each option of a group, by name: from cost files, and memory if wanted.

    Raises:
        FormatError: if a cost file cannot be read.
        UsageError: if it lacks a scheme of the group.
    """
    limits = [_of_file(path, [group], math.inf) for path in files]
    return {limit.name: limit.costs[0] for limit in limits} | ({MEMORY: _memory_of(table, group)} if memory else {})


def read_costs(path: Path) -> tuple[str, dict[tuple[str, Scheme], float]]:
    """The name of the cost in a cost file, and its value by layer and scheme.

    Raises:
        FormatError: if the file is missing or does not have this form.
    """
    _, name, found = _read(path)
    return name, found


def _read(path: Path) -> tuple[LatencyFacts | None, str, dict[tuple[str, Scheme], float]]:
    """What a file of `mpq profile` says of itself, the name of the cost, and its value by layer and scheme."""
    document = Document(None, str(path), FormatError, "write for example conv1,int8,0.10")
    text = _text(path)
    facts, rest = read_latency_facts(text, path), text.partition("\n")[2]
    rows = list(csv_rows(text if facts is None else f"\n{rest}", document))  # an empty line, to count lines as they are
    columns = list(rows[0][1]) if rows else []
    names = [column for column in columns if column not in ("layer", "scheme")]
    if len(names) != 1 or len(columns) != 3:
        told = f"has the columns {shown(', '.join(columns))[1:-1]}" if columns else "has no rows"
        raise FormatError(f"{path} {told}: it needs the columns layer, scheme and one cost, such as latency_ms")
    found: dict[tuple[str, Scheme], float] = {}
    for line, row in rows:
        pair = row["layer"], _scheme(row["scheme"], f"{path}, line {line}")
        if pair in found:
            raise FormatError(f"{path}, line {line}: {shown(pair[0])} under {pair[1]} appears twice: remove one of the lines")
        found[pair] = _cost(row[names[0]], f"{path}, line {line}: {shown(names[0])[1:-1]}")
    return facts, names[0], found


def profile_facts(path: Path) -> LatencyFacts | None:
    """What a file of `mpq profile` says of itself; None for other cost files.

    Raises:
        FormatError: if the file is missing or damaged.
    """
    return read_latency_facts(_text(path), path)


def _text(path: Path) -> str:
    return read_text(path, error=FormatError, absent="name a CSV file of costs")


def _scheme(text: str, place: str) -> Scheme:
    try:
        return parse_scheme(text[:SHOWN_TEXT])
    except SchemeError as error:
        raise FormatError(f"{place}: {error}") from error


def _cost(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= _MOST:
        raise FormatError(f"{place} is {shown(text)}: give a number of 0 or more")
    return value
