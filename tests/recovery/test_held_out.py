"""Held-out samples decide on what a step proposes."""

import pytest
import torch
from torch import Tensor

from mpq.evidence.paired_test import Comparison
from mpq.formats.scheme import parse_scheme
from mpq.models.layers.discover import discover
from mpq.models.running.fake_quantized import Variants
from mpq.models.running.metrics import KLDivergence, Metric, RelativeMSE
from mpq.models.running.reference import Reference
from mpq.recovery.base import Decision, Limits, Proposal, State, Step, Task
from mpq.recovery.held_out import Verdict, decide
from mpq.tensors.quantizers.registry import quantizer_named
from tests.models.small import bits, data, mlp

HELD_OUT = data(64, seed=9)


class Any(Step):
    """A step whose proposals are made by the test."""

    name, title = "any", "Any"

    def propose(self, task: Task, state: State) -> Proposal:
        raise NotImplementedError


class ByOutputs(Any):
    outputs_decide = True


def started(scheme: str, metric: Metric | None = None) -> tuple[Task, State]:
    module = mlp()
    variants = Variants(module, discover(module, HELD_OUT.batches).layers, quantizer_named("rtn"))
    weights = {name: variants.quantized(name, parse_scheme(scheme)) for name in variants.layers}
    return Task(variants, data(24), metric or RelativeMSE(), 0, Limits(1e12, 1)), State(weights)


def finer(task: Task, state: State, scheme: str = "int8") -> Proposal:
    weights = {name: task.variants.quantized(name, parse_scheme(scheme)) for name in state.weights}
    return Proposal("for 3 layers", weights=weights, details={"passes": 2}, remark=", remarked")


def test_a_significant_gain_is_kept_with_its_figures() -> None:
    task, state = started("int3")
    before = bits(task.module)
    found = decide(Any(), finer(task, state), task, state, HELD_OUT, seconds=3.0)
    assert bits(task.module) == before
    reference = Reference(task.module, HELD_OUT, RelativeMSE())
    first, second = (reference.errors(each.values(task.layers)) for each in (state, state.changed(finer(task, state).weights, {})))
    assert [found.before, found.after] == pytest.approx([float(first.mean()), float(second.mean())])
    assert found.stderr == pytest.approx([float(each.std()) / 8 for each in (first, second)])
    reason = f"kept for 3 layers: relative MSE {found.before:.4g} -> {found.after:.4g} on 64 held-out samples, remarked"
    assert (found.kept, found.reason) == (True, reason)
    assert (found.name, found.title, found.metric, found.seconds, found.details) == ("any", "Any", "relative_mse", 3.0, {"passes": 2})
    assert found.line == f"Any {reason} (3 s)"


def test_a_significant_loss_is_not_kept() -> None:
    task, state = started("int8")
    found = decide(Any(), finer(task, state, "int2"), task, state, HELD_OUT, seconds=0.0)
    assert not found.kept
    assert found.reason.startswith("not kept: relative MSE ")
    assert found.reason.endswith(" on 64 held-out samples, significantly worse, remarked")


def nothing(task: Task, state: State) -> Decision:
    bias: Tensor = task.module.get_parameter("5.bias").detach()
    return decide(ByOutputs(), Proposal("for a bias", tensors={"5.bias": bias.clone()}), task, state, HELD_OUT, seconds=0.0)


def test_no_difference_is_no_gain() -> None:
    found = nothing(*started("int8"))
    assert not found.kept
    assert found.before == found.after
    assert found.reason.endswith(", no significant gain")


def test_where_the_metric_shows_no_difference_the_outputs_decide_for_a_step_that_asks() -> None:
    """Logits that all move together change no probability, but bring the outputs back."""
    task, state = started("int8", KLDivergence())
    bias = task.module.get_parameter("5.bias").detach()
    moved = State(state.weights, {"5.bias": bias + 1.0})
    back = Proposal("for a bias", tensors={"5.bias": bias.clone()})
    asked, not_asked = (decide(step, back, task, moved, HELD_OUT, seconds=0.0) for step in (ByOutputs(), Any()))
    assert (asked.kept, not_asked.kept) == (True, False)
    assert asked.details["decided_by"] == "relative_mse"
    assert asked.details["outputs_after"] < asked.details["outputs_before"]
    shown = f"relative MSE {asked.details['outputs_before']:.4g} -> {asked.details['outputs_after']:.4g}"
    assert asked.reason.endswith(f" on 64 held-out samples, no significant difference; decided by {shown}")
    assert not_asked.reason.endswith(", no significant gain")


def test_a_metric_is_shortened_where_it_has_a_short_name() -> None:
    verdict = Verdict("kl_divergence", (0.00045678, 0.0001), (0.0, 0.0), Comparison(-1.0, 0.1))
    assert verdict.figures == "KL 0.0004568 -> 0.0001"
    assert Verdict("own", (2.0, 1.0), (0.0, 0.0), Comparison(-1.0, 0.1)).figures == "own 2 -> 1"


def test_a_step_that_ran_out_of_time_says_so() -> None:
    task, state = started("int3")
    proposal = Proposal("for 3 layers", weights=finer(task, state).weights, stopped=True)
    assert decide(Any(), proposal, task, state, HELD_OUT, seconds=1.0).stopped
    assert torch.is_grad_enabled()
