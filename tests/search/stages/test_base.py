from typing import Any

import numpy as np
import pytest

from mpq.search.problem import Problem, build_groups
from mpq.search.stages.base import Proposal, Setting, Stage, Turn
from mpq.search.study import Measured
from tests.small import random_table

GROUPS = build_groups(random_table(0, count=3))


class Kept:
    """A notebook in memory."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def kept(self, name: str) -> Any:
        return self.values.get(name)

    def keep(self, name: str, value: Any) -> None:
        self.values[name] = value


class First(Stage):
    """Proposes one plan."""

    name = "first"
    place = 1

    def propose(self, turn: Turn) -> Proposal | None:
        return None if turn.number else Proposal(lambda _: turn.best.choice, "again")


SETTING = Setting(Problem(GROUPS, 10**9), 8, Kept())
BEST = Measured((0, 0, 0), np.ones(2), "exact")


def test_a_stage_without_a_model_of_its_own_costs_and_predicts_nothing() -> None:
    stage = First(SETTING)
    assert (stage.begin(BEST), stage.prepare(BEST, 3.0), stage.expected(), stage.notes) == (0.0, 0.0, None, ())
    stage.observe(BEST)
    assert stage.setting is SETTING
    assert (stage.share, stage.share_with_slopes, stage.title) == (0.0, 0.0, "")


def test_a_stage_proposes_until_it_has_no_plan_left() -> None:
    stage = First(SETTING)
    turns = [Turn(number, BEST, np.random.default_rng(0), set(), [BEST], []) for number in range(2)]
    found = stage.propose(turns[0])
    assert found is not None
    assert found.note == "again"
    assert stage.propose(turns[1]) is None


def test_a_stage_must_propose() -> None:
    class Silent(Stage):
        name = "silent"
        place = 2

    with pytest.raises(TypeError, match="abstract"):
        Silent(SETTING)  # type: ignore[abstract]
