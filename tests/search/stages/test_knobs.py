import itertools

import numpy as np
import optuna
import pytest

from mpq.search.problem import Group, Problem, build_groups
from mpq.search.stages.knobs import MOST_KINDS, Knobs, kind_of
from tests.small import linear, random_table


def problem(seed: int = 0, share: float = 0.4, *, count: int = 6) -> Problem:
    groups = build_groups(random_table(seed, count=count))
    bare = Problem(groups, 0)
    return Problem(groups, int(bare.smallest + share * (bare.largest - bare.smallest)))


def solved(found: Problem) -> tuple[int, ...]:
    solution = found.solve()
    assert solution is not None
    return solution.choice


@pytest.mark.parametrize("seed", range(5))
def test_the_neutral_setting_gives_the_exact_plan(seed: int) -> None:
    found = problem(seed)
    knobs = Knobs(found)
    assert knobs.decode(knobs.neutral) == solved(found)


@pytest.mark.parametrize("seed", range(5))
def test_every_setting_gives_a_plan_within_the_limit(seed: int) -> None:
    found = problem(seed, 0.1)
    knobs, generator = Knobs(found), np.random.default_rng(seed)
    choices = set()
    for _ in range(20):
        choice = knobs.decode({knob.name: float(generator.uniform(knob.low, knob.high)) for knob in knobs.all})
        assert found.cost(choice) <= found.limit
        choices.add(choice)
    assert len(choices) > 1


def test_knobs_are_few_and_named_for_people() -> None:
    names = [knob.name for knob in Knobs(problem()).all]
    assert names == ["power_of_error", "power_of_size", "depth_slope", "depth_curve", "depth_wave", "weight_of_k", "weight_of_q"]


def test_rare_kinds_share_one_weight() -> None:
    groups = build_groups(random_table(0, count=40))
    kinds = [Group((linear(f"layer{i % 20}", 4, 64),), group.options) for i, group in enumerate(groups)]
    assert sum(knob.name.startswith("weight_of_") for knob in Knobs(Problem(tuple(kinds), 10**9)).all) == MOST_KINDS


def test_layers_of_one_kind_have_no_knob_of_their_own() -> None:
    groups = build_groups(random_table(0, count=2))
    alike = tuple(Group((linear(f"{i}.fc", 4, 64),), group.options) for i, group in enumerate(groups))
    assert not any(knob.name.startswith("weight_of_") for knob in Knobs(Problem(alike, 10**9)).all)


def test_a_single_layer_and_errors_below_zero_are_no_obstacle() -> None:
    single = problem(count=1)
    option = single.groups[0].options
    negative = tuple(type(each)(each.schemes, each.cost, -each.error) for each in option)
    for found in (single, Problem((Group(single.groups[0].layers, negative),), single.limit)):
        knobs = Knobs(found)
        for power, size in itertools.product((0.6, 1.6), (-0.5, 0.5)):
            assert found.cost(knobs.decode(knobs.neutral | {"power_of_error": power, "power_of_size": size})) <= found.limit


def test_optuna_is_asked_for_every_knob_within_its_range() -> None:
    knobs = Knobs(problem())
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    setting = knobs.suggest(trial)
    assert setting == trial.params
    assert all(knob.low <= setting[knob.name] <= knob.high for knob in knobs.all)


@pytest.mark.parametrize(("name", "kind"), [("model.layers.3.q_proj", "q_proj"), ("0", "linear"), ("conv1", "conv1"), ("a.7", "a")])
def test_the_kind_of_a_layer_is_its_name_without_numbers(name: str, kind: str) -> None:
    assert kind_of(Group((linear(name, 2, 2),), ())) == kind
