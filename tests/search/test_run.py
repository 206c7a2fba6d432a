import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage

from mpq.budget import Budget, Scope
from mpq.config import SearchSettings
from mpq.errors import BudgetError, ConfigError, UsageError
from mpq.files import Journal
from mpq.formats.scheme import parse_scheme
from mpq.records.plan import Plan, plan_to_yaml
from mpq.records.sensitivity import Sensitivity, scheme_cost
from mpq.search.run import SearchResult, search
from mpq.search.stages.schedule import trials_of
from tests.search.measuring import FakeMeasurer
from tests.search.solvers.test_quadratic import correlated_table
from tests.small import REST, linear, random_table, table

TABLE = random_table(3)
NAMES = [layer.name for layer in TABLE.layers]


def measured(budget: str = "6bits", *, found: Sensitivity = TABLE, **choices: Any) -> SearchResult:
    return search(found, budget, measurer=FakeMeasurer(found), **({"trials": 16} | choices))


def texts(plan: Plan) -> dict[str, str]:
    return {name: str(scheme) for name, scheme in plan.layers.items()}


def test_the_same_seed_gives_the_same_plan_byte_for_byte() -> None:
    assert plan_to_yaml(measured(seed=5).plan) == plan_to_yaml(measured(seed=5).plan)


def test_without_a_measurer_the_exact_solution_is_returned_with_its_gap() -> None:
    found = search(TABLE, "6bits")
    assert (found.finalists, found.measurements) == ((), 0)
    assert found.reason == "table optimum: no plan was measured"
    assert found.plan.evidence["optimality_gap"] == 0.0
    assert "measured" not in found.plan.evidence
    assert found.plan.evidence_is_current


def test_a_measured_plan_carries_its_evidence() -> None:
    found = measured()
    evidence = found.plan.evidence
    assert found.plan.evidence_is_current
    assert list(evidence) == [
        "assignment",
        "metric",
        "predicted",
        "measured",
        "best_uniform",
        "optimality_gap",
        "decision",
        "probability",
        "finalists",
    ]
    assert evidence["measured"]["samples"] == {"calibration": 24, "held_out": 16}
    assert evidence["decision"] == found.reason
    assert evidence["finalists"][0]["name"] == "table optimum"
    assert {"int2", "int4"} <= {row["name"] for row in evidence["finalists"]}


@pytest.mark.parametrize("help_", [True, False])
def test_interactions_choose_the_unmeasured_plan_where_the_self_check_says_that_they_help(help_: bool) -> None:
    found = correlated_table(2)
    better, worse = {"rank": 0.9, "bias": 0.0, "spread": 0.1}, {"rank": 0.8, "bias": 0.0, "spread": 0.2}
    found.finish = {"check": {"additive": worse if help_ else better, "interactions": better if help_ else worse}}
    evidence = search(found, "4bits").plan.evidence
    assert evidence["decision"].startswith("optimum with interactions" if help_ else "table optimum")
    assert ("with_interactions" in evidence) == help_
    assert not help_ or evidence["with_interactions"]["bound"] <= evidence["with_interactions"]["predicted"]


def test_the_quadratic_plan_competes_where_there_are_interactions() -> None:
    found = correlated_table(2)
    assert "optimum with interactions" in [finalist.name for finalist in measured("4bits", found=found).finalists]
    assert "optimum with interactions" not in [finalist.name for finalist in measured().finalists]


@pytest.mark.parametrize("stop_after", [1, 4, 7, 9, 13])
def test_a_resumed_study_gives_the_plan_of_an_uninterrupted_one_and_measures_nothing_twice(tmp_path: Path, stop_after: int) -> None:
    expected = FakeMeasurer(TABLE)
    whole = search(TABLE, "6bits", measurer=expected, trials=16)
    storage: Any = f"sqlite:///{tmp_path / 'study.db'}" if stop_after == 4 else InMemoryStorage()  # a database takes seconds
    before, after = FakeMeasurer(TABLE, stop_after=stop_after), FakeMeasurer(TABLE)
    with pytest.raises(KeyboardInterrupt):
        search(TABLE, "6bits", measurer=before, trials=16, storage=storage)
    resumed = search(TABLE, "6bits", measurer=after, trials=16, storage=storage)
    assert before.tried + after.tried == expected.tried
    assert len({str(schemes) for schemes in expected.tried}) == len(expected.tried)
    assert plan_to_yaml(resumed.plan) == plan_to_yaml(whole.plan)
    assert resumed.measurements == len(after.tried)


def test_a_finished_study_is_read_without_measuring() -> None:
    storage = InMemoryStorage()
    first = search(TABLE, "6bits", measurer=FakeMeasurer(TABLE), trials=16, storage=storage)
    again = FakeMeasurer(TABLE)
    assert plan_to_yaml(search(TABLE, "6bits", measurer=again, trials=16, storage=storage).plan) == plan_to_yaml(first.plan)
    assert again.tried == []


def test_studies_of_other_problems_share_a_storage_and_keep_apart() -> None:
    storage = InMemoryStorage()
    pins = {"pins": {NAMES[0]: "int8"}}
    problems: list[tuple[str, dict[str, Any]]] = [("6bits", {}), ("7bits", {}), ("6bits", {"seed": 1}), ("6bits", pins)]
    for budget, choices in problems:
        other = FakeMeasurer(TABLE)
        search(TABLE, budget, measurer=other, trials=4, storage=storage, **choices)
        assert other.tried


def test_pins_are_kept_in_every_measured_plan_and_noted() -> None:
    pins = {NAMES[2]: "int8", NAMES[0]: "fp16"}
    assert measured("7bits", pins=pins).plan.pinned == (NAMES[0], NAMES[2])
    measurer = FakeMeasurer(TABLE)
    search(TABLE, "7bits", measurer=measurer, trials=8, pins=pins)
    assert len(measurer.tried) > 5
    assert {(schemes[NAMES[0]], schemes[NAMES[2]]) for schemes in measurer.tried} == {("fp16", "int8")}


def test_ties_are_kept_in_every_measured_plan_and_noted() -> None:
    tie = (NAMES[4], NAMES[1])
    plan = measured("7bits", ties=(tie,)).plan
    assert (plan.ties, list(plan.layers)) == ((tie,), NAMES)
    measurer = FakeMeasurer(TABLE)
    search(TABLE, "7bits", measurer=measurer, trials=8, ties=(tie,))
    assert len(measurer.tried) > 5
    assert all(schemes[tie[0]] == schemes[tie[1]] for schemes in measurer.tried)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"pins": {"head": "int8"}}, "--pin 'head' matches nothing: the closest names are blocks.2.q, blocks.2.k, blocks.1.q"),
        ({"ties": (("head", NAMES[0]),)}, "'head' is tied but is not a searched layer: `mpq show` on the sensitivity file lists them"),
        ({"ties": (NAMES[:2], NAMES[1:3])}, f"layer '{NAMES[1]}' is tied twice: put each layer into one group only"),
    ],
)
def test_unknown_and_repeated_layers_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        search(TABLE, "6bits", **choices)
    assert str(error.value) == message


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        search(TABLE, "6bits", trails=4)  # type: ignore[call-arg]
    names = "activations, candidates, costs, memory, min_bits, pins, rest, seed, sketches, start, storage, ties, timeout, trials"
    assert str(error.value) == f"'trails' is not a setting: use {names}"


def test_an_unfinished_analysis_is_refused(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "t.jsonl", TABLE.header.to_dict())
    journal.close()
    with pytest.raises(UsageError) as error:
        search(tmp_path / "t.jsonl", "6bits")
    assert str(error.value) == "the analysis is unfinished: 30 values are missing; run `mpq analyze` again, it resumes"


SMALL = table([linear("a", 4, 64), linear("b", 8, 64)], {name: {"int4": 1.0, "int8": 0.1} for name in "ab"})


def test_a_budget_that_no_plan_meets_is_refused_with_the_range() -> None:
    with pytest.raises(BudgetError) as error:
        search(SMALL, "4bits")
    expected = "with these candidates a plan takes 4.25 to 8.25 bits per weight (408 to 792 bytes)"
    assert str(error.value) == f"budget 4bits (layers) cannot be met: {expected}"


def test_a_file_budget_that_no_plan_meets_names_the_size_of_the_file() -> None:
    with pytest.raises(BudgetError, match=r"^budget 1kB \(file\) cannot be met: with these candidates a plan takes ") as error:
        search(SMALL, "1kB", scope="file")
    smallest = search(SMALL, "1MB", pins={"a": "int4", "b": "int4"}, scope="file").plan.size.file_bytes
    shown = int(str(error.value).split("(")[-1].split(" ")[0].replace(",", ""))
    assert smallest <= shown <= smallest + 7
    assert search(SMALL, f"{shown}B", scope="file").plan.size.file_bytes == smallest


def upgrades(found: Sensitivity, plan: Plan, scope: Scope) -> list[int]:
    """Bytes that each upgrade of one layer would add."""
    return [
        scheme_cost(layer, scheme, scope=scope) - scheme_cost(layer, plan.layers[layer.name], scope=scope)
        for layer in found.layers
        for scheme in found.header.candidates[layer.name]
        if found.mean(layer.name, scheme) < found.mean(layer.name, plan.layers[layer.name])
    ]


def test_a_budget_on_the_file_makes_room_for_sketches() -> None:
    plain = search(SMALL, "1MB", pins={"a": "int4", "b": "int4"}, scope="file").plan
    sketched = search(SMALL, "1MB", pins={"a": "int4", "b": "int4"}, scope="file", sketches=True).plan
    assert (plain.sketches, sketched.sketches) == (None, ())  # of an exported program, inputs and outputs alone
    more = sketched.size.file_bytes - plain.size.file_bytes
    assert more > 4 * 360
    with pytest.raises(BudgetError):
        search(SMALL, f"{plain.size.file_bytes}B", scope="file", sketches=True)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(0, 1), st.sampled_from(["layers", "file"]))
def test_no_plan_is_over_its_budget_and_no_single_upgrade_would_still_fit(seed: int, count: int, share: float, scope: Scope) -> None:
    found = random_table(seed, count=count)
    low, high = (
        sum(pick(scheme_cost(layer, scheme, scope=scope) for scheme in found.header.candidates[layer.name]) for layer in found.layers)
        for pick in (min, max)
    )
    constant = 0 if scope == "layers" else 8 + REST.header_bytes + REST.data_bytes + 7
    limit = int(low + share * (high - low)) + constant
    plan = search(found, Budget(f"{limit}B", scope)).plan
    taken = plan.size.layer_bytes if scope == "layers" else plan.size.file_bytes
    assert taken <= limit
    counted = sum(scheme_cost(layer, plan.layers[layer.name], scope=scope) for layer in found.layers)
    assert all(counted + more > limit - constant for more in upgrades(found, plan, scope))


@pytest.mark.parametrize("scope", ["layers", "file"])
@pytest.mark.parametrize("seed", range(3))
def test_no_measured_plan_is_over_its_budget(scope: Scope, seed: int) -> None:
    found = random_table(seed)
    limit = 8_000 if scope == "layers" else 9_000
    measurer = FakeMeasurer(found)
    result = search(found, f"{limit}B", scope=scope, measurer=measurer, trials=12)
    for schemes in measurer.tried:
        size = result.plan.with_layers({name: parse_scheme(text) for name, text in schemes.items()}).size
        assert (size.layer_bytes if scope == "layers" else size.file_bytes) <= limit


def test_the_uniform_plan_is_returned_when_mixing_gains_nothing() -> None:
    alike = table([linear(name, 8, 64) for name in "abcd"], {name: {"int4": 1.0, "int8": 0.5} for name in "abcd"})
    found = search(alike, "4.3bits", measurer=FakeMeasurer(alike), trials=4)
    assert set(texts(found.plan).values()) == {"int4"}
    assert found.reason == "table optimum: the same plan as uniform int4"


def test_trials_are_split_between_the_stages_and_reported() -> None:
    calls: list[tuple[str, int, int]] = []
    measured(trials=10, on_progress=lambda stage, done, total, _: calls.append((stage, done, total)))
    for stage, total in (("knobs", 2), ("learn", 5), ("swap", trials_of("swap", 10))):
        assert [call for call in calls if call[0] == stage] == [(stage, number, total) for number in range(1, total + 1)]


def test_progress_names_the_stages_in_plain_words(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(
        sys.modules["mpq.search.run"], "reported", lambda *_, **__: nullcontext(lambda done, total, text: seen.append(text))
    )
    measured(trials=10)
    assert {text.partition(",")[0] for text in seen} >= {"re-weighted table", "learned errors", "layer swaps"}


def test_no_time_means_no_trials_but_a_plan() -> None:
    measurer = FakeMeasurer(TABLE)
    found = search(TABLE, "6bits", measurer=measurer, settings=SearchSettings(trials=50, timeout=0.0))
    assert len(measurer.tried) == found.measurements < 10
    assert found.plan.evidence["measured"]


def test_pins_take_patterns_and_a_name_wins_over_a_pattern() -> None:
    pins = {NAMES[0]: "int8", "*": "int4"}
    found = search(TABLE, "12bits", trials=0, pins=pins)
    assert [str(scheme) for scheme in found.plan.layers.values()] == ["int8", *["int4"] * (len(NAMES) - 1)]
    assert found.plan.pinned == tuple(NAMES)
    later = search(TABLE, "12bits", trials=0, pins={"*": "int4", f"re:{NAMES[1]}|{NAMES[2]}": "int8"})
    assert [name for name, scheme in later.plan.layers.items() if str(scheme) == "int8"] == [NAMES[1], NAMES[2]]


def test_a_budget_above_the_largest_plan_is_everything_at_its_largest_and_said() -> None:
    found = search(TABLE, "30bits")
    largest = max(scheme.stored_bits(layer.matrix) for layer in TABLE.layers[:1] for scheme in TABLE.header.candidates[layer.name])
    assert found.plan.layers[TABLE.layers[0].name].stored_bits(TABLE.layers[0].matrix) == largest
    (note,) = found.notes
    assert note.startswith("the budget fits every layer at its largest candidate, with ")
    assert search(TABLE, "5bits").notes == ()
    with pytest.raises(BudgetError, match=r"^budget '200%' is more than the original, which is 100%"):
        search(TABLE, "200%")
