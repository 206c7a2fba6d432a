"""Numbers that arithmetic stumbles over: NaN, infinity, denormals, constant outputs, errors from 1e-12 to 1e6 in one table.

Nothing may crash, the choice must be the best by an exhaustive search, and what is written must be finite.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from benchmarks.faults import world
from benchmarks.faults.context import Context, faults_of
from benchmarks.faults.forks import run_one
from benchmarks.faults.report import Fault, Row

PART = "numbers"
Figures = Mapping[str, Mapping[str, float]]
_SCHEMES = ("int2", "int4", "int8")
_VALUES = (math.nan, math.inf, 5e-324, 1e-310, 0.0, 1e-12, 1e-6, 1.0, 1e6, 1e300)
_BUDGETS = ("3bits", "4.5bits", "6bits", "100%")
_WEIGHTS = ("zero", "tiny", "huge", "denormal", "one huge row", "nan", "inf", "constant output", "overflow")


def run(context: Context) -> Row:
    """Tables, then models."""
    row = Row(PART)
    tables = list(_tables(context))
    progress = context.progress(PART, len(tables) + len(_WEIGHTS))
    for name, figures in tables:
        if context.wanted(name):
            repeat = context.repeat(PART, name)
            ended = run_one(partial(_search, figures), context.fresh(name), seconds=60.0)
            faults = faults_of(ended, "a table", repeat)
            faults += [Fault(kind, "a table", f"{name}: {detail}", repeat) for kind, detail in ended.value or ()]
            row.add(faults, seconds=ended.seconds, held=ended.bytes)
        progress.step(text=name)
    for kind in _WEIGHTS if not context.short else ("zero", "huge"):
        if context.wanted(f"weights {kind}"):
            repeat = context.repeat(PART, f"weights {kind}")
            ended = run_one(partial(_analyze, kind), context.fresh(f"weights {kind}", ("calibration.pt",)), seconds=120.0)
            faults = faults_of(ended, f"weights {kind}", repeat)
            faults += [Fault(what, f"weights {kind}", detail, repeat) for what, detail in ended.value or ()]
            row.add(faults, seconds=ended.seconds, held=ended.bytes)
        progress.step(text=kind)
    return row


def _tables(context: Context) -> Iterator[tuple[str, Figures]]:
    """Each value alone, in one layer, in all; then mixtures drawn at random."""
    plain = {"int2": 1.0, "int4": 0.1, "int8": 0.001}
    for value in _VALUES if not context.short else (math.nan, 5e-324, 1e300):
        yield f"{value} everywhere", {f"l{n}": dict.fromkeys(_SCHEMES, value) for n in range(3)}
        yield f"{value} at int2", {f"l{n}": plain | {"int2": value} for n in range(3)}
        yield f"{value} in one layer", {"l0": dict.fromkeys(_SCHEMES, value), "l1": plain, "l2": plain}
    generator = random.Random(f"{context.seed} numbers")
    for number in range(context.number(full=300, short=3)):
        yield f"mixture {number}", {f"l{n}": {text: generator.choice(_VALUES) for text in _SCHEMES} for n in range(4)}


def _search(figures: Figures) -> list[tuple[str, str]]:
    """What is wrong with the plans of a table, for several budgets, with and without measuring."""
    import yaml

    from benchmarks.faults.tables import FakeMeasurer, table_of
    from mpq.errors import MpqError
    from mpq.records.plan import plan_to_yaml
    from mpq.search.run import search

    found, table = [], table_of(figures)
    for budget in _BUDGETS:
        for trials in (0, 2):
            try:
                result = search(table, budget, measurer=FakeMeasurer(table) if trials else None, trials=trials)
            except MpqError:
                continue
            if not trials:
                found += _choice(table, figures, budget, {name: str(s) for name, s in result.plan.layers.items()})
            text = plan_to_yaml(result.plan)
            if not _finite(yaml.safe_load(text)["evidence"]):
                found.append(("not finite in a plan", f"{budget}, {trials} trials"))
    return found


def _choice(table: Any, figures: Figures, budget: str, chosen: Mapping[str, str]) -> list[tuple[str, str]]:
    """Whether a choice is the best of all that fit; figures that are not finite count as infinite."""
    from mpq.budget import Budget

    layers, weights = table.layers, sum(layer.weights for layer in table.layers)
    limit = Budget(budget).bytes(weights=weights, original_bytes=sum(layer.original_bytes for layer in layers))
    bytes_of = {(layer.name, str(s)): s.stored_bits(layer.matrix) // 8 for layer in layers for s in table.header.candidates[layer.name]}
    best = min(
        (_badness(figures[layer.name][text] for layer, text in zip(layers, texts, strict=True)))
        for texts in itertools.product(_SCHEMES, repeat=len(layers))
        if sum(bytes_of[layer.name, text] for layer, text in zip(layers, texts, strict=True)) <= limit
    )
    mine = _badness(figures[name][text] for name, text in chosen.items())
    if sum(bytes_of[pair] for pair in chosen.items()) > limit:
        return [("over the budget", f"{budget}: {chosen}")]
    if mine[0] > best[0] or (mine[0] == best[0] and mine[1] > best[1] * (1 + 1e-9) + 1e-300):
        return [("not the best choice", f"{budget}: {chosen} has {mine}, the best {best}")]
    return []


def _badness(errors: Iterator[float]) -> tuple[int, float]:
    """How many figures are not finite, and the sum of the others."""
    listed = list(errors)
    return sum(not math.isfinite(error) for error in listed), math.fsum(error for error in listed if math.isfinite(error))


def _finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _analyze(kind: str) -> list[tuple[str, str]]:
    """Analyze, search and apply a model with such weights; exit codes, and figures that JSON lacks."""
    import torch

    model = world.mlp()
    first, last = model[0], model[5]
    with torch.no_grad():
        _fill(kind, first.weight, last)
    torch.export.save(torch.export.export(model, (torch.zeros(8, 8),), dynamic_shapes=({0: torch.export.Dim("n", max=4096)},)), "model.pt2")
    lines = [
        "analyze model.pt2 --calib calibration.pt --candidates 2,4,8 --json",
        "search --budget 5bits --trials 2 --json",
        "apply plan.yaml --json",
    ]
    found = []
    for line in lines:
        code = world.mpq(line)
        if code not in (0, 2, 3):
            found.append((f"exit code {code}", line))
        if code:
            break
    for record in map(json.loads, _lines()):
        if not _finite(record):
            found.append(("not finite in a sensitivity file", str(record)[:200]))
    return found


def _lines() -> list[str]:
    from pathlib import Path

    return [line for path in Path().glob("*.jsonl") for line in path.read_text().splitlines()]


def _fill(kind: str, weight: Any, last: Any) -> None:
    scales = {"zero": 0.0, "tiny": 1e-12, "huge": 1e6, "denormal": 1e-40, "overflow": 1e38, "nan": math.nan, "inf": math.inf}
    if kind in scales:
        weight.mul_(scales[kind]) if math.isfinite(scales[kind]) else weight[0].fill_(scales[kind])
    elif kind == "one huge row":
        weight[0].mul_(1e6)
    else:
        last.weight.zero_()
