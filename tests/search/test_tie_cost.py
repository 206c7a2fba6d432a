from mpq.budget import Budget
from mpq.config import SearchSettings
from mpq.search.tie_cost import TieCost, tie_cost
from tests.small import linear, table

TABLE = table(
    [linear("q", 4, 64), linear("k", 4, 64)],
    {"q": {"int4": 1.0, "int8": 0.1}, "k": {"int4": 0.25, "int8": 0.2}},
)
MIDDLE = Budget("6.25bits")  # room for one layer at 8 bits


def test_ties_cost_what_the_best_plan_without_them_saves() -> None:
    found = tie_cost(TABLE, MIDDLE, SearchSettings(ties=(("q", "k"),)))
    assert found == TieCost(1, 1.25, 0.35)
    assert str(found) == "ties: 1 group of layers share one scheme; least predicted error 1.25, without ties 0.35, 257.1% more"


def test_ties_that_the_budget_leaves_no_choice_for_cost_nothing() -> None:
    found = tie_cost(TABLE, Budget("9bits"), SearchSettings(ties=(("q", "k"),)))
    assert found is not None
    assert found.tied == found.free


def test_without_ties_there_is_no_cost() -> None:
    assert tie_cost(TABLE, MIDDLE, SearchSettings()) is None
    assert tie_cost(TABLE, MIDDLE, SearchSettings(ties=("auto",))) is None


def test_a_model_without_error_has_no_ratio() -> None:
    assert str(TieCost(2, 0.0, 0.0)) == "ties: 2 groups of layers share one scheme; least predicted error 0, without ties 0"
