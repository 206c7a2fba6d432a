from typing import Any

import pytest

from mpq.budget import Budget
from mpq.config import SearchSettings
from mpq.errors import BudgetError
from mpq.formats.scheme import parse_scheme
from mpq.search.byte_limit import byte_limit
from mpq.search.constraints import groups_for
from mpq.search.costs import cost_limits
from mpq.search.feasible import check_feasible
from mpq.search.problem import Problem
from tests.small import linear, table

ERRORS = {"int4": 1.0, "int8": 0.1, "fp16": 0.0}
TABLE = table([linear("a", 4, 64), linear("b", 8, 64)], {"a": ERRORS, "b": ERRORS})  # 4.25, 8.25 and 16 bits per weight


def refused(budget: str, **choices: Any) -> str:
    settings, wanted = SearchSettings(**choices), Budget(budget, "layers")
    groups, limit = groups_for(TABLE, settings, scope="layers"), byte_limit(TABLE, wanted)
    problem = Problem(groups, limit.layers, cost_limits(TABLE, groups, settings.costs, settings.memory))
    with pytest.raises(BudgetError) as error:
        check_feasible(problem, TABLE, wanted, limit, settings)
    return str(error.value)


def test_a_budget_at_the_smallest_plan_is_feasible() -> None:
    wanted = Budget("4.25bits", "layers")
    limit = byte_limit(TABLE, wanted)
    check_feasible(Problem(groups_for(TABLE, SearchSettings(), scope="layers"), limit.layers), TABLE, wanted, limit, SearchSettings())


def test_candidates_that_are_all_too_large_are_the_cause() -> None:
    expected = "budget 4bits (layers) cannot be met: with these candidates a plan takes 4.25 to 16 bits per weight (408 to 1,536 bytes)"
    assert refused("4bits") == expected
    assert refused("4bits", min_bits={"a": 4}) == expected


def test_the_option_that_raises_the_smallest_plan_is_named_with_the_size_without_it() -> None:
    assert refused("5bits", min_bits={"b": 8}, pins={"a": parse_scheme("int4")}) == (
        "budget 5bits (layers) cannot be met: with --min-bits a plan takes 6.917 to 12.083 bits per weight (664 to 1,160 bytes); "
        "without --min-bits, at least 4.25 (408 bytes)"
    )


def test_options_and_candidates_are_named_if_both_must_change() -> None:
    assert refused("4bits", min_bits={"b": 8}, candidates={"a": ("16",)}) == (
        "budget 4bits (layers) cannot be met: with these candidates and --min-bits and --candidates (or --for) a plan takes "
        "10.833 to 16 bits per weight (1,040 to 1,536 bytes); without --min-bits and --candidates (or --for), at least 4.25 (408 bytes)"
    )


def test_memory_names_the_options_that_were_given() -> None:
    assert refused("16bits", memory="700B", min_bits={"b": 8}).startswith(
        "memory_bytes of 700 cannot be met: with these candidates and --min-bits it is "
    )
