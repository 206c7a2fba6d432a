"""What a step works with, and what is said of its decision."""

import json
import math

import pytest
import torch

from mpq.errors import MpqError
from mpq.formats.scheme import parse_scheme
from mpq.models.layers.discover import discover
from mpq.models.running.fake_quantized import Variants
from mpq.models.running.metrics import RelativeMSE
from mpq.recovery.base import Clock, Decision, Limits, OutOfTimeError, Proposal, State, Task, gap_evidence
from mpq.tensors.quantizers.registry import quantizer_named
from tests.models.small import data, mlp

MODULE, SAMPLES = mlp(), data(8)
LAYERS = discover(MODULE, SAMPLES.batches).layers
VARIANTS = Variants(MODULE, LAYERS, quantizer_named("rtn"))
INT4, INT8 = (VARIANTS.quantized("0", parse_scheme(text)) for text in ("int4", "int8"))


def test_a_state_gives_the_values_of_its_weights_and_tensors_by_their_names() -> None:
    values = State({"0": INT4}, {"5.bias": torch.ones(4)}).values(LAYERS)
    assert set(values) == {"0.weight", "5.bias"}
    assert torch.equal(values["0.weight"], VARIANTS.weight("0", parse_scheme("int4")))
    assert torch.equal(values["5.bias"], torch.ones(4))


def test_a_changed_state_is_another_one() -> None:
    first = State({"0": INT4}, {"5.bias": torch.ones(4)})
    other = first.changed({"0": INT8}, {"3.bias": torch.zeros(12)})
    assert (dict(first.weights), list(first.tensors)) == ({"0": INT4}, ["5.bias"])
    assert (dict(other.weights), list(other.tensors)) == ({"0": INT8}, ["5.bias", "3.bias"])


def test_limits_name_their_option() -> None:
    assert Limits(1e12, 2.5).told == "2.5 minutes (--tune-minutes)"


def test_a_clock_stops_a_step_whose_time_is_over() -> None:
    clock = Limits(1e12, 10).clock()
    clock.check()
    assert not clock.over
    assert 0 <= clock.spent < 60
    stopped = Clock(0)
    assert stopped.over
    with pytest.raises(OutOfTimeError, match=r"^0 s$"):
        stopped.check()
    assert issubclass(OutOfTimeError, MpqError)


def test_a_task_knows_its_model_and_layers() -> None:
    task = Task(VARIANTS, SAMPLES, RelativeMSE(), 0, Limits(math.inf, 1))
    assert task.module is MODULE
    assert task.layers == list(LAYERS)


def test_a_task_on_another_form_of_the_model_leaves_the_first_as_it_is() -> None:
    task, other = Task(VARIANTS, SAMPLES, RelativeMSE(), 0, Limits(math.inf, 1)), mlp()
    found = task.on(other)
    assert found.module is other
    assert found.layers == task.layers
    assert task.module is MODULE


def test_a_proposal_changes_something_where_it_names_a_weight_or_a_tensor() -> None:
    assert not Proposal("nothing to do").changes
    assert Proposal("for a layer", weights={"0": INT4}).changes
    assert Proposal("for a bias", tensors={"5.bias": torch.ones(4)}).changes


def test_a_decision_is_one_line() -> None:
    assert (
        Decision("tuning", "Tuning", True, "kept for 5 layers: KL 2 -> 1", seconds=12.4).line
        == "Tuning kept for 5 layers: KL 2 -> 1 (12 s)"
    )
    assert Decision("tuning", "Tuning", False, "skipped: switched off").line == "Tuning skipped: switched off"


def test_a_decision_is_json() -> None:
    made = Decision("tuning", "Tuning", True, "kept", "kl", 2.0, 1.0, (0.1, 0.2), 12.0, True, {"passes": 3})
    assert json.loads(json.dumps(made.to_dict())) == {
        "name": "tuning",
        "title": "Tuning",
        "kept": True,
        "reason": "kept",
        "metric": "kl",
        "before": 2.0,
        "after": 1.0,
        "stderr": {"before": 0.1, "after": 0.2},
        "seconds": 12.0,
        "stopped": True,
        "details": {"passes": 3},
    }
    assert Decision("a", "A", False, "skipped").to_dict()["stderr"] is None


def test_the_gap_is_from_before_the_first_step_to_after_the_last() -> None:
    first, last = Decision("a", "A", True, "", "kl", 0.5, 0.4, (0.1, 0.2)), Decision("b", "B", True, "", "kl", 0.4, 0.1, (0.2, 0.05))
    assert gap_evidence(first, last) == {"before": 0.5, "after": 0.1, "share_of_gap": pytest.approx(0.8), "standard_error": 0.05}
    assert gap_evidence(Decision("a", "A", False, "skipped"), last) == {}
    assert gap_evidence(Decision("a", "A", True, "", "kl", 0.0, 0.0, (0.0, 0.0)), last)["share_of_gap"] == 0


def test_a_limit_of_time_names_the_option_that_sets_it() -> None:
    assert Limits(1.0, 15).told == "15 minutes (--tune-minutes)"
    assert Limits(1.0, 5, "half of --minutes").told == "5 minutes (half of --minutes)"
