import math

import pytest

from mpq.analyze.selfcheck import PLANS, random_plans
from mpq.records.sensitivity import layer_bytes
from tests.small import linear, random_table, table


@pytest.mark.parametrize("seed", range(3))
def test_random_plans_are_complete_unlike_each_other_and_the_same_for_the_same_seed(seed: int) -> None:
    found = random_table(seed, count=12)
    plans = list(random_plans(found, seed=seed))
    assert plans == list(random_plans(found, seed=seed))
    assert len(plans) == PLANS == len({str(plan) for plan in plans})
    assert all(list(plan) == [layer.name for layer in found.layers] for plan in plans)


def test_random_plans_lie_between_the_smallest_and_half_of_the_largest() -> None:
    found = random_table(0, count=12)
    sizes = [[s.stored_bits(layer.matrix) // 8 for s in found.header.candidates[layer.name]] for layer in found.layers]
    low, high = sum(map(min, sizes)), sum(map(max, sizes))
    assert all(low <= layer_bytes(found.layers, plan) <= low + 0.4 * (high - low) for plan in random_plans(found, seed=0))


def test_random_plans_spend_bits_where_they_save_error() -> None:
    layers = [linear(f"layer{number}", 4, 64) for number in range(8)]
    errors = {
        layer.name: {"int2": [1e-9 if number < 4 else 1.0], "int8": [1e-10 if number < 4 else 0.01]} for number, layer in enumerate(layers)
    }
    for plan in random_plans(table(layers, errors), seed=0):
        assert all(str(plan[layer.name]) == "int2" for layer in layers[:4])
    assert any(str(plan[layers[-1].name]) == "int8" for plan in random_plans(table(layers, errors), seed=0))


def test_schemes_that_break_the_output_are_left_out_where_there_are_others() -> None:
    layers = [linear("a", 4, 64), linear("b", 4, 64)]
    broken = {"int2": [math.nan], "int4": [1.0], "int8": [math.nan]}
    found = table(layers, {"a": broken, "b": {"int2": [math.nan]}})
    assert {str(plan["a"]) for plan in random_plans(found, seed=0)} == {"int4"}
    assert {str(plan["b"]) for plan in random_plans(found, seed=0)} == {"int2"}
