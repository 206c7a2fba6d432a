"""All limits of a file together: its plan's own budget, those of the command line, and those of a file of budgets. No torch.

Limits add up: giving one never relaxes another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from mpq.budget import Scope
from mpq.check.budgets import Rule, rule_from
from mpq.check.measure_size import weigh
from mpq.check.measured_error import Measure
from mpq.check.run import Check, check_file, own_budget
from mpq.check.verdicts import Verdict, files_of, growth, judge
from mpq.errors import FormatError, UsageError

NAMED = "command line"


class Measures(Protocol):
    """Gives the evaluation of artifacts."""

    def __call__(self, folder: Path, *, by_rules: bool) -> Measure:
        """`folder` is where relative data paths start; `by_rules` is set if a file of budgets, not the user, asks for the measurement."""


@dataclass(frozen=True)
class Limits:
    """The limits given on the command line. None means no limit.

    Args:
        budget: a size limit, for example "4.5bits".
        scope: what it counts.
        max_error: held-out error of a plan.
        rule: further limits, under the names of `Rule`.
        baseline: what growth is counted against.
        growth: percent that the file may be larger than the baseline.
    """

    budget: str | None = None
    scope: Scope | None = None
    max_error: float | None = None
    rule: Mapping[str, Any] = field(default_factory=dict)
    baseline: str | None = None
    growth: float | None = None


def gate(named: Sequence[Path], limits: Limits | None, rules: Sequence[Rule], root: Path, *, measure: Measures) -> list[Verdict]:
    """Check files against all their limits.

    Args:
        named: files given on the command line; if empty, the files that `rules` apply to.
        limits: given on the command line; None if there are none.
        rules: of the file of budgets; rules for files not in `named` are skipped.
        root: the folder of the file of budgets.
        measure: gives the evaluation of artifacts, by the folder of their data and whether a file of budgets asks for it.

    Returns:
        One verdict per file; if the command line gives no limits, one per rule and file.

    Raises:
        UsageError: if nothing limits a file.
        MpqError: if a file cannot be read, or a limit does not apply to it.
    """
    if not named and limits is None:
        return _with_own_budgets(judge(rules, root, measure=measure(root, by_rules=True)))
    files = list(dict.fromkeys(named or [path for rule in rules for path in files_of(rule, root)]))
    return [_all_of(file, limits or Limits(), rules, root, measure) for file in files]


def _all_of(file: Path, limits: Limits, rules: Sequence[Rule], root: Path, measure: Measures) -> Verdict:
    if not file.exists():
        raise FormatError(f"{file} does not exist: run `mpq search` first, or name a plan or an artifact")
    found = _own(file) + check_file(file, budget=limits.budget, scope=limits.scope, max_error=limits.max_error)
    if limits.rule:
        (verdict,) = judge([rule_from({"files": str(file), **limits.rule})], Path(), measure=measure(Path(), by_rules=False))
        found += verdict.checks
    if limits.baseline is not None:
        found += growth(weigh(file), limits.baseline, size=limits.growth)
    for verdict in judge(rules, root, measure=measure(root, by_rules=True), only={file.resolve()}):
        found += verdict.checks
    if not found:
        raise UsageError(f"nothing limits {file}: it has no budget of its own, so give --budget, for example --budget 12MB")
    return Verdict(str(file), NAMED, tuple(dict.fromkeys(found)))


def _with_own_budgets(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts, and in the first one of each plan its own budget."""
    found, seen = [], set[Path]()
    for verdict in verdicts:
        path = Path(verdict.file).resolve()
        found.append(verdict if path in seen else replace(verdict, checks=(*_own(Path(verdict.file)), *verdict.checks)))
        seen.add(path)
    return found


def _own(file: Path) -> list[Check]:
    plan = weigh(file).plan
    return [] if plan is None else own_budget(plan)
