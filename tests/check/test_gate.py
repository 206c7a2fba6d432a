"""No limit takes the place of another, wherever it stands: in the plan, on the command line, or in the file of budgets."""

from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path

import pytest

from mpq.budget import Budget
from mpq.records.loaded_size import loaded_bytes
from mpq.records.plan import write_plan
from tests.check.making import plan_of
from tests.cli.typed import refused, typed

PLAN = plan_of("int4 int4 int8")
SIZE, SHARE = PLAN.size, 100 * PLAN.size.file_bytes / (PLAN.original_bytes + PLAN.rest.original_bytes)
DENSE, PACKED = (
    loaded_bytes(PLAN.layers, PLAN.shapes, original_bytes=PLAN.original_bytes, rest_bytes=PLAN.rest.original_bytes, form=form)
    for form in ("dense", "packed")
)
OLD = {"kept": PLAN, "broken": plan_of("int3 int4 int8", 0.05)}  # what growth is counted from
# where a limit stands and its name: the name of its check, the value that is kept, and the one that is broken
LIMITS = {
    "plan budget": ("size of the layers", f"{SIZE.layer_bytes}B", f"{SIZE.layer_bytes - 1}B"),
    "line --budget": ("size of the file", f"{SIZE.file_bytes}B --scope file", f"{SIZE.file_bytes - 1}B --scope file"),
    "line --max-error": ("error (kl_divergence, held-out)", "0.1", "0.099"),
    "line --max-loaded": ("loaded memory", f"{DENSE}B", f"{DENSE - 1}B"),
    "line --max-loaded-packed": ("loaded memory, packed", f"{PACKED}B", f"{PACKED - 1}B"),
    "line --baseline": ("growth", "kept.yaml", "broken.yaml"),
    "file max_bits": ("bits per weight", f"{SIZE.effective_bits}", f"{SIZE.effective_bits - 1e-9}"),
    "file max_bytes": ("size of the file", f"{SIZE.file_bytes}", f"{SIZE.file_bytes - 1}"),
    "file max_loaded": ("loaded memory", f"{DENSE}", f"{DENSE - 1}"),
    "file max_loaded_packed": ("loaded memory, packed", f"{PACKED}", f"{PACKED - 1}"),
    "file max_share": ("share of the original", f"{SHARE + 0.01:.2f}%", f"{SHARE - 0.01:.2f}%"),
    "file max_error": ("held-out error (kl_divergence)", "0.1", "0.099"),
    "file max_growth": ("growth", "0%, baseline: kept.yaml", "0%, baseline: broken.yaml"),
    "file max_error_growth": ("growth of the error", "0%, baseline: kept.yaml", "0%, baseline: broken.yaml"),
    "file forbid": ("forbidden schemes", "{embed: int8}", "{embed: int4}"),
    "file require": ("required schemes", "{head: int8}", "{head: fp16}"),
}
ON_ONE_LINE = [name for name in LIMITS if not name.startswith("file ")]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, old in OLD.items():
        write_plan(old, Path(f"{name}.yaml"))


def checked(limits: tuple[str, ...], broken: str | None, *, name_the_file: bool = True) -> tuple[int, list[str]]:
    """The exit code of a check under these limits, one of them broken, and the names of the failed checks."""
    values = {limit: LIMITS[limit][2 if limit == broken else 1] for limit in limits}
    write_plan(replace(PLAN, budget=Budget(values["plan budget"]) if "plan budget" in values else None), Path("plan.yaml"))
    rules = "".join(
        f"  - {{files: plan.yaml, {limit.removeprefix('file ')}: {value}}}\n" for limit, value in values.items() if "file " in limit
    )
    Path("mpq-budgets.yaml").unlink(missing_ok=True)
    if rules:
        Path("mpq-budgets.yaml").write_text(f"mpq_budgets: 1\nbudgets:\n{rules}")
    options = [f"{limit.removeprefix('line ')} {value}" for limit, value in values.items() if limit.startswith("line ")]
    ran = typed(" ".join(["check", *(["plan.yaml"] if name_the_file else []), *options]))
    assert ran.err == ""
    lines = [line for line in ran.out.splitlines() if line.startswith(("ok  ", "FAIL"))]
    wanted = {LIMITS[limit][0] for limit in limits}
    assert {name_of(line) for line in lines} == wanted, "every limit is one check"
    return ran.code, [name_of(line) for line in lines if line.startswith("FAIL")]


def name_of(line: str) -> str:
    return line[6:].removeprefix("plan.yaml: ").split(": ")[0]


def subsets(names: list[str]) -> list[tuple[str, ...]]:
    return list(chain.from_iterable(combinations(names, count) for count in range(1, len(names) + 1)))


@pytest.mark.parametrize("limits", subsets(ON_ONE_LINE), ids=", ".join)
def test_every_combination_of_the_plans_own_budget_and_the_command_line_holds_whole(limits: tuple[str, ...]) -> None:
    assert checked(limits, None) == (0, [])
    for broken in limits:
        assert checked(limits, broken) == (1, [LIMITS[broken][0]])


@pytest.mark.parametrize("limits", list(combinations(LIMITS, 2)), ids=", ".join)
def test_every_two_limits_wherever_they_stand_hold_together(limits: tuple[str, ...]) -> None:
    assert checked(limits, None) == (0, [])
    for named, broken in zip((True, False), limits, strict=True):
        assert checked(limits, broken, name_the_file=named) == (1, [LIMITS[broken][0]])


@pytest.mark.parametrize("broken", LIMITS)
def test_all_limits_at_once_and_any_of_them_broken(broken: str) -> None:
    assert checked(tuple(LIMITS), None) == (0, [])
    code, failed = checked(tuple(LIMITS), broken)
    assert (code, failed) == (1, [LIMITS[broken][0]])


def test_a_budget_on_the_command_line_does_not_loosen_the_plans_own() -> None:
    write_plan(replace(PLAN, budget=Budget("4bits")), Path("plan.yaml"))
    ran = typed("check plan.yaml --budget 9bits")
    assert ran.code == 1
    assert [line[:4] for line in ran.out.splitlines()] == ["FAIL", "ok  "]
    assert "the budget of 4bits (" in ran.out.splitlines()[0]


def test_the_plans_own_budget_given_again_is_one_check() -> None:
    write_plan(replace(PLAN, budget=Budget("9bits")), Path("plan.yaml"))
    assert typed("check plan.yaml --budget 9bits").out.count("\n") == 1


def test_a_plan_by_another_name_keeps_its_budget_too() -> None:
    write_plan(replace(PLAN, budget=Budget("4bits")), Path("plan.txt"))
    write_plan(PLAN, Path("old.txt"))
    ran = typed("check plan.txt --baseline old.txt")
    assert ran.code == 1
    assert ran.out.startswith("FAIL  plan.txt: size of the layers: ")
    assert "growth: +0 bytes" in ran.out


def test_rules_for_other_files_are_passed_over_where_files_are_named() -> None:
    write_plan(PLAN, Path("plan.yaml"))
    Path("mpq-budgets.yaml").write_text(
        "mpq_budgets: 1\nbudgets:\n  - {files: 'none/*.yaml', max_bits: 1}\n  - {files: kept.yaml, max_bits: 1}\n"
    )
    assert typed("check plan.yaml --budget 9bits").code == 0
    assert typed("check kept.yaml --budget 9bits").code == 1
    assert refused("check", 2).startswith("'none/*.yaml' matches no file in ")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("", "nothing limits plan.yaml: it has no budget of its own, so give --budget, for example --budget 12MB"),
        ("--scope file", "--scope file says what --budget counts: give --budget too, for example --budget 4.5bits"),
        ("--max-error nan", "--max-error nan is not a limit: give a number of 0 or more"),
        ("--max-error -1", "--max-error -1.0 is not a limit: give a number of 0 or more"),
        ("--baseline kept.yaml --max-growth nan", "--max-growth 'nan' is not a percentage: write for example 1%"),
        ("--baseline kept.yaml --max-growth inf%", "--max-growth 'inf%' is not a percentage: write for example 1%"),
        ("--max-growth 1%", "--max-growth needs --baseline: a git revision such as origin/main, or a file"),
    ],
)
def test_what_would_limit_nothing_is_refused(options: str, reason: str) -> None:
    write_plan(PLAN, Path("plan.yaml"))
    assert refused(f"check plan.yaml {options}", 2) == reason


def test_growth_from_an_empty_file_has_no_percentage() -> None:
    Path("old.gguf").touch()
    Path("new.gguf").write_bytes(bytes(5))
    ran = typed("check new.gguf --baseline old.gguf")
    assert (ran.code, ran.out) == (1, "FAIL  new.gguf: growth: +5 bytes since old.gguf, allowed is 0%\n")
