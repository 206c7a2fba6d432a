import math
from typing import Any

import pytest

from mpq.check.budgets import Rule
from mpq.check.measure_size import Weighed
from mpq.check.measured_error import measured_error, shortfall
from mpq.check.run import CERTAIN, Check
from mpq.errors import ConfigError
from mpq.records.evaluation import Evaluation, Figure

FIGURES = (
    Figure("kl_divergence", 0.02, stderr=0.001),
    Figure("top1_agreement", 0.9, stderr=0.01),
    Figure("accuracy", 0.75, 0.8),
    Figure("perplexity", 6.5, 6.0),
)


def check(limit: float, *, kind: Any = "artifact", figures: tuple[Figure, ...] = FIGURES, **more: Any) -> Check:
    rule = Rule(("m",), max_error=limit, data="test.pt", **more)
    return measured_error(Weighed("m", kind, 1), rule, limit, lambda path, rule: Evaluation(figures, 100, f"{rule.data} for {path}"))


def test_the_error_is_the_divergence_unless_told_otherwise() -> None:
    found = check(0.02)
    assert (found.name, found.passed) == ("error (kl_divergence)", True)
    assert found.message == "0.02 ±0.001 on 100 samples of test.pt, within the limit of 0.02"
    assert check(0.015).message == "0.02 ±0.001 on 100 samples of test.pt, 0.005 over the limit of 0.015"
    assert not check(0.015).passed


@pytest.mark.parametrize(("metric", "error"), [("accuracy", 0.05), ("perplexity", 0.5), ("top1_agreement", 0.1), ("kl_divergence", 0.02)])
def test_each_figure_counts_as_how_much_worse_it_is(metric: str, error: float) -> None:
    assert math.isclose(shortfall(Evaluation(FIGURES, 1, "")[metric]), error)
    assert check(error + 1e-9, metric=metric).passed
    assert not check(error - 1e-9, metric=metric).passed


def test_a_model_that_became_better_passes_a_limit_of_zero() -> None:
    assert check(0, metric="accuracy", figures=(Figure("accuracy", 0.9, 0.8),)).passed


def test_a_figure_that_the_data_does_not_give_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"there is no metric 'loss' in the evaluation of test.pt for m: it has kl_divergence, top1_"):
        check(1, metric="loss")


@pytest.mark.parametrize("kind", ["plan", "other"])
def test_only_artifacts_are_measured(kind: str) -> None:
    with pytest.raises(
        ConfigError, match=r"`data` needs an artifact, and m is not one: name a file that `mpq apply` wrote, or omit `data`"
    ):
        check(1, kind=kind)


def test_where_the_output_is_no_logits_the_error_is_relative() -> None:
    assert check(0.5, figures=(Figure("relative_mse", 0.25), Figure("cosine_similarity", 0.9))).name == "error (relative_mse)"


def test_a_limit_on_samples_on_which_the_reference_is_nearly_certain_says_so() -> None:
    rule = Rule(("m",), max_error=1, data="train.pt")
    found = measured_error(Weighed("m", "artifact", 1), rule, 1, lambda *_: Evaluation(FIGURES, 100, "train.pt", "the reference is …"))
    assert found.passed
    assert found.message == f"0.02 ±0.001 on 100 samples of train.pt, within the limit of 1{CERTAIN}"
