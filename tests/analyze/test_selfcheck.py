import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import mpq
from mpq.analyze.selfcheck import PLANS, on_samples, random_plans
from mpq.data.dataset import data_from_batches
from mpq.formats.scheme import Scheme
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


@pytest.mark.parametrize("fixed", [None, 4])
def test_figures_of_some_samples_are_those_of_the_samples_that_are_measured(fixed: int | None) -> None:
    whole = replace(data_from_batches(list(torch.split(torch.arange(80.0).unsqueeze(1), 4))), fixed_batch=fixed)
    some = whole.spread(32)
    found = table([linear("a", 4, 64)], {"a": {"int8": [float(value) for value in range(80)], "int4": [1.0] * 16}})
    pair = ("a", Scheme("int8"))
    draws = 2 * 80 if fixed is None else 2 * 20
    found.products[pair] = np.arange(draws, dtype=np.float64)
    part = on_samples(found, whole, 32)
    kept = [int(value) for batch in some.batches for value in batch.args[0].flatten()]
    assert part.errors[pair].tolist() == kept
    units = kept if fixed is None else [place // 4 for place in kept[::4]]
    assert part.products[pair].tolist() == [2 * unit + draw for unit in units for draw in range(2)]
    assert len(found.errors[pair]) == 80
    assert part.errors["a", Scheme("int4")].tolist() == [1.0] * 16  # measured on some samples only


def test_predictions_are_compared_on_the_same_samples() -> None:
    torch.manual_seed(0)
    batches = list(torch.split(torch.randn(200, 16).mul(torch.linspace(0.1, 10, 200).unsqueeze(1)), 8))
    found = mpq.analyze(
        nn.Sequential(nn.Linear(16, 8), nn.Tanh()).eval(), batches, candidates=("2", "4"), method="measure", quantizer="rtn"
    )
    assert found.finish is not None
    assert found.finish["check"] | {"additive": {}} == {"plans": 12, "samples": 32, "additive": {}}
    assert found.finish["check"]["additive"]["bias"] == 0.0  # a plan is one layer, so its error is that of the table
    assert found.finish["check"]["additive"]["spread"] == 0.0
