from typing import Any

import pytest

from mpq.evidence.self_check import off_by, self_check_lines, self_check_warnings


def finish(rank: float | None, bias: float | None, **more: Any) -> dict[str, Any]:
    return {"check": {"plans": 12, "additive": {"rank": rank, "bias": bias, "spread": 0.1}, **more}}


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (40.39, "40 times too large"),
        (250.4, "250 times too large"),
        (2.5, "2.5 times too large"),
        (1.2, "20% too large"),
        (1.001, "right on average"),
        (0.95, "5% too small"),
        (0.5, "2 times too small"),
        (1 / 30, "30 times too small"),
    ],
)
def test_a_ratio_is_said_as_a_factor_or_a_share(ratio: float, words: str) -> None:
    assert off_by(ratio) == words


def test_lines_give_rank_and_bias_of_each_model() -> None:
    found = finish(0.937, -0.0943, interactions={"rank": 0.95, "bias": 3.6986, "spread": 0.2})
    assert self_check_lines(found) == [
        "self-check on 12 random plans, additive: rank correlation 0.937, predictions are 9% too small",
        "self-check on 12 random plans, interactions: rank correlation 0.950, predictions are 40 times too large",
    ]
    assert self_check_lines(None) == self_check_lines(finish(None, None)) == []


@pytest.mark.parametrize(("rank", "bias"), [(0.5, 0.0), (0.9, 2.30), (0.9, -2.30), (None, None)])
def test_a_table_that_predicts_well_enough_has_no_warning(rank: float | None, bias: float | None) -> None:
    assert self_check_warnings(finish(rank, bias), method="measure") == []


@pytest.mark.parametrize(
    ("rank", "bias", "words"),
    [
        (0.49, 0.0, "the rank correlation with measured plans is 0.49"),
        (0.9, 2.31, "predictions are 10 times too large"),
        (-0.2, -3.0, "the rank correlation with measured plans is -0.20 and predictions are 20 times too small"),
    ],
)
def test_a_table_that_is_wildly_off_has_one(rank: float, bias: float, words: str) -> None:
    for method, advice in (("measure", "more samples"), ("fisher", "--method measure or more samples")):
        (line,) = self_check_warnings(finish(rank, bias), method=method)
        assert line == (
            f"the sensitivities predict whole plans poorly: on 12 random plans {words}; "
            f"let `mpq search` measure plans (not --trials 0), and try {advice}"
        )
