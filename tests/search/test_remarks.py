from dataclasses import replace
from typing import Any

import yaml

from mpq.records.layer import Layer
from mpq.records.plan import plan_to_yaml
from mpq.search.problem import Problem, build_groups
from mpq.search.remarks import remarks
from mpq.search.run import search
from tests.small import linear, random_table, table

EVEN = {"int4": 1.0, "int8": 0.1}


def told(layers: list[Layer], errors: dict[str, dict[str, float]], budget: str, **choices: Any) -> dict[str, str]:
    return search(table(layers, errors), budget, **choices).plan.remarks


def test_a_large_sensitive_layer_with_few_bits_and_a_small_blunt_one_with_many_are_remarked_on() -> None:
    layers = [linear("large", 512, 512), *(linear(f"middle{i}", 64, 64) for i in range(3)), linear("small", 8, 64)]
    errors = {"large": {"int4": 2.0, "int8": 0.1}, "small": {"int4": 0.5, "int8": 0.01}}
    found = told(layers, errors | {f"middle{i}": {"int4": 1.0, "int8": 0.9} for i in range(3)}, "4.05bits")
    assert found == {
        "large": "number 1 of 5 by sensitivity, but has 95.3% of the weights",
        "small": "number 5 of 5 by sensitivity, but has only 0.2% of the weights",
    }


def test_bits_that_follow_the_rank_need_no_remark() -> None:
    layers = [linear(f"l{i}", 64, 64) for i in range(8)]
    errors = {layer.name: {"int4": 8.0 - i, "int8": 0.0} for i, layer in enumerate(layers)}
    assert told(layers, errors, "6.3bits") == {}


def test_a_layer_that_its_tie_raised_names_who_needs_it() -> None:
    layers = [linear(name, 64, 64) for name in ("q", "k", "other")]
    errors = {"q": {"int4": 9.0, "int8": 0.1}, "k": {"int4": 0.2, "int8": 0.1}, "other": EVEN}
    assert told(layers, errors, "7bits", ties=(("q", "k"),)) == {"k": "raised because it is tied: q needs it"}


def test_a_layer_without_a_choice_says_why() -> None:
    layers = [linear("odd", 64, 64), linear("wild", 64, 64), linear("other", 64, 64)]
    errors = {"odd": {"fp16": 0.0}, "wild": {"int4": float("nan"), "fp16": 0.0}, "other": EVEN}
    assert told(layers, errors, "13bits") == {"odd": "its only candidate", "wild": "other candidates gave NaN or infinity"}


def test_a_tied_head_is_named_beside_its_embedding() -> None:
    layers = [replace(linear("embed", 64, 64), parameters=("embed.weight", "head.weight")), linear("other", 64, 64)]
    assert told(layers, {"embed": EVEN, "other": EVEN}, "9bits") == {"embed": "one tensor with head.weight"}


def test_a_pinned_layer_needs_no_other_reason() -> None:
    found = random_table(3)
    name = found.layers[0].name
    plan = search(found, "5bits", pins={name: "fp16"}).plan
    assert name not in plan.remarks
    assert f"  {name}: fp16  # pinned\n" in plan_to_yaml(plan)


def test_remarks_are_comments_that_change_neither_the_plan_nor_its_digest() -> None:
    plan = search(random_table(3), "5bits").plan
    name = next(iter(plan.layers))
    remarked = replace(plan, remarks={name: "first\nsecond: # third"})
    text = plan_to_yaml(remarked)
    assert f"  {name}: {plan.layers[name]}  # first second: # third\n" in text
    assert yaml.safe_load(text) == yaml.safe_load(plan_to_yaml(replace(plan, remarks={})))
    assert (remarked, remarked.assignment) == (plan, plan.assignment)


def test_what_was_measured_is_told_where_it_overrules_the_table() -> None:
    layers = [linear("a", 64, 64), linear("b", 64, 64)]
    made = table(layers, {"a": EVEN, "b": EVEN})
    problem = Problem(build_groups(made), 10**6)
    assert remarks(problem, (0, 1), made, exact=(1, 1), pins={}) == {"a": "decided by measured plans; the table alone says int8"}
