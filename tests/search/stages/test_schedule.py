import pytest

from mpq.evidence.paired_test import compare
from mpq.search.problem import Problem, build_groups
from mpq.search.stages.registry import stage_kinds
from mpq.search.stages.schedule import Schedule, in_plain_words, trials_of
from mpq.search.study import Measured, Study
from tests.search.measuring import FakeMeasurer, FakeMeasurerInParts, whole
from tests.search.stages.test_knobs import solved
from tests.small import random_table


def scheduled(seed: int, *, trials: int = 30, stop: bool = False) -> tuple[Schedule, Study, Problem]:
    groups = build_groups(random_table(seed, count=8))
    bare = Problem(groups, 0)
    problem = Problem(groups, int(bare.smallest + 0.4 * (bare.largest - bare.smallest)))
    study = Study(problem, whole(FakeMeasurer(random_table(seed, count=8))), seed=0, name="a")
    return Schedule(study, trials=trials, stop=lambda: stop, on_progress=lambda *_: None), study, problem


def best_after(found: Schedule, problem: Problem) -> Measured:
    """The best plan after all stages."""
    start = found.fixed("exact", solved(problem))
    return [best for _, best in found.run(start)][-1]


@pytest.mark.parametrize("seed", range(4))
def test_an_incumbent_is_replaced_only_by_a_plan_that_is_better_on_the_same_samples(seed: int) -> None:
    found, _, problem = scheduled(seed)
    start = found.fixed("exact", solved(problem))
    best = start
    for _, after in found.run(start):
        assert after is best or compare(after.errors, best.errors).difference < 0
        assert problem.cost(after.choice) <= problem.limit
        best = after
    assert best.mean <= start.mean


def test_no_plan_is_drawn_or_swapped_twice() -> None:
    found, study, problem = scheduled(1)
    best_after(found, problem)
    choices = [each.choice for each in (*study.stage("learn"), *study.stage("swap"))]
    assert len(set(choices)) == len(choices)


def test_no_trial_is_begun_after_stop() -> None:
    found, study, problem = scheduled(0, stop=True)
    start = found.fixed("exact", solved(problem))
    assert all(best is start for _, best in found.run(start))
    assert study.measurements == 1


def test_progress_is_told_in_plain_words() -> None:
    told: list[tuple[int, int, str]] = []
    in_plain_words(lambda *of: told.append(of), "KL")("knobs", 2, 5, 0.12345)
    assert told == [(2, 5, "re-weighted table, KL 0.1235")]


@pytest.mark.parametrize("trials", [0, 1, 5, 64])
def test_the_stages_share_all_trials(trials: int) -> None:
    assert sum(trials_of(kind.name, trials) for kind in stage_kinds()) == trials


def test_the_whole_allowance_goes_to_new_plans() -> None:
    found, study, problem = scheduled(2, trials=40)
    best_after(found, problem)
    assert study.measurements == 1 + 40


def test_the_lowest_of_all_is_known_even_if_it_never_became_the_incumbent() -> None:
    found, study, problem = scheduled(3)
    best_after(found, problem)
    assert found.lowest.mean == min(each.mean for each in study.finished)


def test_plans_given_up_count_in_part_and_never_win() -> None:
    _, _, problem = scheduled(2)
    measurer = FakeMeasurerInParts(random_table(2, count=8), noise=0.01)
    study = Study(problem, measurer.calibration_parts, seed=0, name="a")
    found = Schedule(study, trials=30, stop=lambda: False, on_progress=lambda *_: None)
    best, exact = best_after(found, problem), study.finished[0]
    given_up = [each for each in study.finished if each.estimate is not None]
    assert len(given_up) > 5
    assert study.measurements > 31
    assert measurer.seen <= 24 * (1 + 30 + 3)
    assert best.estimate is None
    assert found.lowest.estimate is None
    assert best.mean <= exact.mean
