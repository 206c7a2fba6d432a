import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import optuna
import pytest

from mpq.errors import FormatError
from mpq.formats.scheme import Scheme
from mpq.records.sensitivity import Errors
from mpq.search.problem import Problem, build_groups
from mpq.search.stages.knobs import Knobs
from mpq.search.study import Study
from tests.small import random_table

PROBLEM = Problem(build_groups(random_table(0, count=4)), 10**9)
FIRST, SECOND = (0, 0, 0, 0), (1, 2, 0, 3)


class Counting:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, schemes: Mapping[str, Scheme]) -> list[Errors]:
        self.count += 1
        return [np.array([1 / 3, math.nan if "int2" in map(str, schemes.values()) else 0.1])]


def study(measure: Counting, storage: str | None = None, *, seed: int = 0, problem: Problem = PROBLEM) -> Study:
    return Study(problem, measure, seed=seed, name="a", storage=storage)


def test_a_plan_is_measured_once_and_recorded_each_time() -> None:
    measure = Counting()
    found = study(measure)
    first = found.trial("exact", lambda _: FIRST)
    again = found.trial("swap", lambda _: FIRST, note="back")
    assert (measure.count, found.measurements) == (1, 1)
    assert again.errors is first.errors
    assert [each.stage for each in found.stage("swap")] == ["swap"]
    assert found.stage("knobs") == []


def test_trials_survive_in_their_storage_to_the_bit(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    before, measure = study(Counting(), storage), Counting()
    made = [before.trial("exact", lambda _: FIRST), before.trial("swap", lambda _: SECOND, note="why")]
    after = study(measure, storage)
    found = [*after.stage("exact"), *after.stage("swap")]
    assert [(each.choice, each.stage, each.note) for each in found] == [(FIRST, "exact", ""), (SECOND, "swap", "why")]
    assert [each.errors.tobytes() for each in found] == [each.errors.tobytes() for each in made]
    after.trial("swap", lambda _: SECOND)
    assert (measure.count, after.measurements) == (0, 0)


def test_a_trial_tells_people_what_was_tried(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    found = study(Counting(), storage)
    found.trial("exact", lambda _: SECOND, note="first")
    found.trial("swap", lambda _: SECOND, note="again")
    trials = optuna.load_study(study_name="a", storage=storage).trials
    assert trials[0].user_attrs["plan"] == {name: str(scheme) for name, scheme in PROBLEM.schemes(SECOND).items()}
    assert (trials[0].user_attrs["note"], trials[1].user_attrs["note"]) == ("first", "again (measured before)")
    bits = sum(scheme.stored_bits(g.layers[0].matrix) for g, scheme in zip(PROBLEM.groups, PROBLEM.schemes(SECOND).values(), strict=True))
    weights = sum(group.layers[0].weights for group in PROBLEM.groups)
    assert trials[0].user_attrs["bits_per_weight"] == round(bits / weights, 4)


def test_an_output_that_is_not_finite_is_an_infinite_error() -> None:
    broken = study(Counting()).trial("exact", lambda _: FIRST)
    assert math.isnan(broken.errors[1])
    assert broken.mean == math.inf


def test_every_trial_has_its_own_stream_of_the_seed() -> None:
    def draws(seed: int) -> list[float]:
        return [float(study(Counting(), seed=seed).generator("learn", number).random()) for number in range(3)]

    assert draws(0) == draws(0)
    assert len({*draws(0), *draws(1)}) == 6


def test_knobs_are_sampled_together_once_there_is_something_to_learn_from() -> None:
    problem = Problem(PROBLEM.groups, Problem(PROBLEM.groups, 0).smallest + 2000)
    found, knobs, relative = study(Counting(), problem=problem), Knobs(problem), []
    found.trial("exact", lambda _: FIRST)

    def propose(trial: optuna.Trial) -> tuple[int, ...]:
        relative.append(set(trial.relative_params))
        return knobs.decode(knobs.suggest(trial))

    for _ in range(12):
        found.trial("knobs", propose)
    assert relative[0] == set()
    assert relative[-1] == {knob.name for knob in knobs.all}


def in_parts(schemes: Mapping[str, Scheme]) -> Iterator[Errors]:
    """Four parts of eight samples; the fewer bits, the larger the error, the same for every sample but for noise."""
    bits = sum(scheme.bits for scheme in schemes.values())
    for part in range(4):
        noise = np.random.default_rng([bits, part]).lognormal(0, 0.05, 8)
        yield np.random.default_rng(part).lognormal(0, 1, 8) * noise / bits**2


def test_a_plan_is_given_up_once_it_is_worse_beyond_noise_and_never_before(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    found = Study(PROBLEM, in_parts, seed=0, name="a", storage=storage)
    good = found.trial("exact", lambda _: (3, 3, 3, 3))
    worse = found.trial("swap", lambda _: FIRST, incumbent=good)
    better = found.trial("swap", lambda _: (4, 4, 4, 4), incumbent=good)
    assert len(good.errors) == len(better.errors) == 32
    assert len(worse.errors) < 32
    assert worse.estimate is not None
    assert good.estimate is better.estimate is None
    whole = float(np.concatenate(list(in_parts(PROBLEM.schemes(FIRST)))).mean())
    assert abs(math.log(worse.mean / whole)) < 0.2
    assert better.better_than(good)
    assert not worse.better_than(good)
    again = Study(PROBLEM, in_parts, seed=0, name="a", storage=storage)
    assert [(each.choice, each.estimate, len(each.errors)) for each in again.finished] == [
        (each.choice, each.estimate, len(each.errors)) for each in (good, worse, better)
    ]
    states = [trial.state for trial in optuna.load_study(study_name="a", storage=storage).trials]
    assert [state.name for state in states] == ["COMPLETE", "PRUNED", "COMPLETE"]


def test_errors_of_another_number_of_samples_are_refused() -> None:
    shorter = iter((np.full(20, 0.1), np.full(12, 0.1)))
    found = Study(PROBLEM, lambda schemes: [next(shorter)], seed=0, name="a")
    found.trial("first", lambda trial: FIRST)
    with pytest.raises(FormatError, match=r"^the study has plans measured on 20 samples, but there are 12 now: remove the study"):
        found.trial("second", lambda trial: SECOND)


def test_a_study_says_what_it_is_about() -> None:
    storage = optuna.storages.InMemoryStorage()
    Study(PROBLEM, Counting(), seed=0, name="a", storage=storage, facts={"budget": "4.5bits (layers)"})
    assert optuna.load_study(study_name="a", storage=storage).user_attrs == {"budget": "4.5bits (layers)"}
