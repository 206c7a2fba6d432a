"""A search never takes over trials that depend on something else, and takes over all that it may."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import BaseStorage, InMemoryStorage

from mpq.formats.scheme import Scheme, parse_scheme
from mpq.records.plan import plan_to_yaml
from mpq.records.sensitivity import Sensitivity
from mpq.search.run import search
from tests.search.measuring import FakeMeasurer
from tests.small import random_table

TABLE = random_table(5, count=6)
BASE: dict[str, Any] = {"budget": "5bits", "trials": 6}


def start(text: str) -> dict[str, Scheme]:
    return {layer.name: parse_scheme(text) for layer in TABLE.layers}


def with_header(part: str, **changed: Any) -> Sensitivity:
    return replace(TABLE, header=replace(TABLE.header, **{part: getattr(TABLE.header, part) | changed}))


def run(storage: BaseStorage, *, table: Sensitivity = TABLE, **choices: Any) -> tuple[list[dict[str, str]], str]:
    """The plans that were measured, and the plan that was found."""
    measurer = FakeMeasurer(table)
    found = search(table, measurer=measurer, storage=storage, **(BASE | choices))
    return measurer.tried, plan_to_yaml(found.plan)


CHANGES: list[dict[str, Any]] = [
    {"start": start("int4")},
    {"pins": {"blocks.0.q": "int8"}},
    {"ties": [["blocks.0.q", "blocks.0.k"]]},
    {"min_bits": {"blocks.1.*": 4}},
    {"candidates": {"blocks.1.*": ("4", "8")}},
    {"memory": "60%"},
    {"costs": "latency.csv"},
    {"seed": 1},
    {"scope": "file", "budget": "6bits"},
    {"budget": "5.1bits"},
    {"table": with_header("model", sha256="c" * 64)},
    {"table": with_header("data", sha256="c" * 64)},
    {"table": with_header("data", held_out=0.5)},
    {"table": with_header("data", seed=1)},
    {"table": with_header("data", batch_size=4)},
    {"table": with_header("settings", metric="relative_mse")},
    {"table": with_header("settings", quantizer="hqq")},
    {"table": with_header("settings", method="fisher")},
    {"table": with_header("versions", torch="1.0")},
]


@pytest.mark.parametrize("changed", CHANGES, ids=lambda changed: "-".join(changed))
def test_each_input_of_a_trial_leads_to_new_measurements(changed: dict[str, Any], tmp_path: Path) -> None:
    if "costs" in changed:
        path = tmp_path / changed["costs"]
        rows = [f"{layer.name},{s},{s.bits}" for layer in TABLE.layers for s in TABLE.header.candidates[layer.name]]
        path.write_text("\n".join(["layer,scheme,latency", *rows]) + "\n")
        changed = {"costs": {str(path): 6.0 * len(TABLE.layers)}}
    shared = InMemoryStorage()
    run(shared)
    assert run(shared, **changed) == run(InMemoryStorage(), **changed)


@pytest.mark.parametrize("first", ["int4", "int4-g32"])
def test_a_second_start_at_the_same_budget_is_measured(first: str) -> None:
    shared, second = InMemoryStorage(), {"int4": "int2", "int4-g32": "int4"}[first]
    run(shared, start=start(first))
    tried, plan = run(shared, start=start(second))
    assert start(second) == {name: parse_scheme(text) for name, text in next(t for t in tried if set(t.values()) == {second}).items()}
    assert (tried, plan) == run(InMemoryStorage(), start=start(second))


def test_a_changed_cost_of_one_layer_leads_to_new_measurements(tmp_path: Path) -> None:
    shared, path = InMemoryStorage(), tmp_path / "latency.csv"
    rows = {(layer.name, str(s)): float(s.bits) for layer in TABLE.layers for s in TABLE.header.candidates[layer.name]}
    for cost in (1.0, 2.0):
        rows[next(iter(rows))] = cost
        path.write_text("layer,scheme,latency\n" + "".join(f"{name},{scheme},{value}\n" for (name, scheme), value in rows.items()))
        limit = {str(path): 6.0 * len(TABLE.layers)}
        assert run(shared, costs=limit) == run(InMemoryStorage(), costs=limit)


def test_more_trials_continue_a_study_and_measure_nothing_twice() -> None:
    shared = InMemoryStorage()
    before, _ = run(shared)
    after, _ = run(shared, trials=12)
    assert after
    assert not [plan for plan in after if plan in before]


@pytest.mark.parametrize("changed", [{"timeout": 1e9}, {"start": start("fp16")}], ids=lambda changed: next(iter(changed)))
def test_what_changes_no_trial_shares_them(changed: dict[str, Any]) -> None:
    shared = InMemoryStorage()
    before, _ = run(shared)
    after, plan = run(shared, **changed)
    whole, expected = run(InMemoryStorage(), **changed)
    assert before + after == whole
    assert plan == expected


def test_a_study_without_a_start_keeps_the_name_of_earlier_versions() -> None:
    storage = InMemoryStorage()
    run(storage)
    assert [study.study_name for study in storage.get_all_studies()] == ["5bits of layers, f2635fe6349c"]
