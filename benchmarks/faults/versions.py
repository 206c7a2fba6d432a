"""Files of format version 1, kept as they were written: this mpq reads them, and finds the values of then.

    python -m benchmarks.faults.versions FOLDER

writes such files anew, with the values that this mpq finds, for a new version of a format; those of an old version stay as they are.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults import readers, world
from benchmarks.faults.context import Context, exit_faults
from benchmarks.faults.forks import run_one
from benchmarks.faults.report import Fault, Row

PART = "versions"
FIXTURES = Path(__file__).parents[2] / "tests" / "fixtures"
_EXPECTED = "expected.json"
_FILES = (
    "model.sensitivity.jsonl",
    "fisher.sensitivity.jsonl",
    "plan.yaml",
    "model.mpq.safetensors",
    "model.study.journal",
    "shards",
    "budgets.yaml",
)
_PLACES = 9  # significant digits to which figures must agree: sums may be made in another order


def run(context: Context) -> Row:
    """Every kind of file of every kept version; then commands that use them."""
    row = Row(PART)
    kept = sorted(path for path in FIXTURES.glob("v*") if (path / _EXPECTED).is_file())
    if not kept:
        row.skipped.append(f"no files are kept in {FIXTURES.name}")
    for folder in kept:
        expected = json.loads((folder / _EXPECTED).read_text())
        for name, read in READ.items():
            case = f"{folder.name} {name}"
            if name not in expected or not context.wanted(case):
                continue
            row.add(_faults(context, case, folder, expected[name], read))
        for line in _LINES:
            if context.wanted(line):
                repeat = context.repeat(PART, line)
                ended = run_one(partial(world.mpq, line), _copy(context, folder, line), seconds=60.0)
                row.add(exit_faults(ended, f"{folder.name}: {line}", repeat, codes=(0,)), seconds=ended.seconds, held=ended.bytes)
    return row


def _faults(context: Context, case: str, folder: Path, expected: Any, read: Callable[[], Any]) -> list[Fault]:
    repeat = context.repeat(PART, case)
    ended = run_one(read, _copy(context, folder, case), seconds=60.0)
    if ended.failure is not None or ended.signal:
        failure = ended.failure
        return [Fault(failure.type if failure else "killed", f"{case}", failure.text if failure else ended.out[-300:], repeat)]
    found = json.loads(json.dumps(ended.value))
    return [] if found == expected else [Fault("other values", case, f"{str(found)[:150]}, expected {str(expected)[:150]}", repeat)]


def _copy(context: Context, folder: Path, name: str) -> Path:
    target = context.fresh(name)
    shutil.copytree(folder, target, dirs_exist_ok=True)
    return target


def _table(name: str) -> dict[str, Any]:
    from mpq.records.sensitivity import read_sensitivity

    table = read_sensitivity(Path(name))
    figures = {f"{layer} {scheme}": _rounded([table.mean(layer, scheme), table.count(layer, scheme)]) for layer, scheme in table.errors}
    return {"metric": table.metric, "finished": table.finished, "layers": [layer.name for layer in table.layers], "figures": figures}


def _plan() -> dict[str, Any]:
    from mpq.records.plan import read_plan

    plan = read_plan(Path("plan.yaml"))
    layers = {name: str(scheme) for name, scheme in plan.layers.items()}
    return {"layers": layers, "size": vars(plan.size), "assignment": plan.assignment, "current": plan.evidence_is_current}


def _outputs() -> list[float]:
    import torch

    import mpq

    with torch.no_grad():
        found = mpq.load("model.mpq.safetensors")(torch.linspace(-1, 1, 16).reshape(2, 8))
    return [round(value, 5) for value in found.flatten().tolist()]


def _shards() -> dict[str, Any]:
    import torch

    import mpq

    with torch.no_grad():
        logits = mpq.load("shards")(torch.arange(6).reshape(1, 6)).logits
    return {"shape": list(logits.shape), "sum": round(float(logits.double().abs().sum()), 3)}


def _study() -> list[Any]:
    trials = readers.trials_in(readers.storage_beside(Path("model.sensitivity.jsonl")))
    return [
        [trial["number"], trial["state"], _rounded(trial["value"]), trial["facts"]["plan"], trial["facts"]["stage"]] for trial in trials
    ]


def _budgets() -> list[dict[str, Any]]:
    from mpq.check.budgets import read_budgets

    return [
        {name: value for name, value in vars(rule).items() if value not in (None, {}, "")} for rule in read_budgets(Path("budgets.yaml"))
    ]


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.{_PLACES}g}") if isinstance(value, float) else value


READ: dict[str, Callable[[], Any]] = {
    "sensitivity": partial(_table, "model.sensitivity.jsonl"),
    "sensitivity by gradients": partial(_table, "fisher.sensitivity.jsonl"),
    "plan": _plan,
    "artifact": _outputs,
    "sharded artifact": _shards,
    "study": _study,
    "budgets": _budgets,
}
_LINES = (
    "show model.sensitivity.jsonl",
    "show plan.yaml",
    "show model.mpq.safetensors",
    "search model.sensitivity.jsonl --budget 5bits --trials 0 -o new.yaml",
    "check plan.yaml --budget 9bits",
    "check --budgets budgets.yaml",
    "export plan.yaml --to gptqmodel -o new.json --nearest",
)


def _write(folder: Path) -> None:
    """Make the files and their values, in children."""
    with tempfile.TemporaryDirectory() as temporary:
        made = world.make_world(Path(temporary) / "world").copy(folder, _FILES)
        values = {}
        for name, read in READ.items():
            ended = run_one(read, made)
            if ended.failure is not None:
                raise SystemExit(ended.failure.trace)
            values[name] = ended.value
    (folder / _EXPECTED).write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
