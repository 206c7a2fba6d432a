"""Steps are taken in order, each from what was kept before; held-out samples decide, and nobody else."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from mpq.data.dataset import Data
from mpq.errors import ModelError
from mpq.formats.scheme import parse_scheme
from mpq.models.layers.discover import discover
from mpq.models.running.fake_quantized import Variants
from mpq.models.running.metrics import RelativeMSE
from mpq.recovery.base import Limits, Proposal, State, Step, Task
from mpq.recovery.registry import STEPS
from mpq.recovery.run import Recovered, hindrances, recover, untried
from mpq.tensors.quantizers.registry import quantizer_named
from tests.models.small import bits, data, mlp


class Shift(Step):
    """Moves the last bias by a constant, from what it is in the state."""

    title = "Shift"

    def __init__(self, name: str, amount: float, raises: Exception | None = None) -> None:
        self.name, self._amount, self._raises = name, amount, raises  # type: ignore[misc]
        self.seen: list[State] = []
        self.before: list[tuple[str, ...]] = []

    def propose(self, task: Task, state: State) -> Proposal:
        self.seen.append(state)
        self.before.append(task.kept)
        if self._raises is not None:
            raise self._raises
        if not self._amount:
            return Proposal("nothing to shift", details={"amount": 0})
        bias = state.tensors.get("5.bias", task.module.get_parameter("5.bias").detach())
        return Proposal("for one bias", tensors={"5.bias": bias + self._amount}, stopped=True, remark=", by hand")


def task(module: nn.Module, samples: Data, scheme: str = "int8") -> tuple[Task, State]:
    layers = discover(module, samples.batches).layers
    variants = Variants(module, layers, quantizer_named("rtn"))
    weights = {layer.name: variants.quantized(layer.name, parse_scheme(scheme)) for layer in layers}
    return Task(variants, samples, RelativeMSE(), 0, Limits(1e12, 10)), State(weights)


class Finer(Step):
    """Codes of more bits, which are better, or zeros, which are worse."""

    title = "Other codes"

    def __init__(self, name: str, *, better: bool) -> None:
        self.name, self._better = name, better  # type: ignore[misc]

    def propose(self, task: Task, state: State) -> Proposal:
        found = {name: task.variants.quantized(name, parse_scheme("int8")) for name in state.weights}
        if not self._better:
            found = {name: replace(weight, scales=torch.zeros_like(weight.codes[:, :1]).half()) for name, weight in found.items()}
        return Proposal("for all layers", weights=found)


def recovered(*steps: Step) -> Recovered:
    module = mlp()
    made, state = task(module, data(48))
    before = bits(module)
    found = recover(made, state, data(48, seed=5), {}, steps=steps)
    assert bits(module) == before
    return found


def test_what_helps_is_kept_and_the_next_step_begins_from_it() -> None:
    made, state = task(mlp(), data(48), "int2")
    after = Shift("after", 0.0)
    found = recover(made, state, data(256, seed=5), {}, steps=(Finer("worse", better=False), Finer("finer", better=True), after))
    worse, finer, idle = found.decisions
    assert found.kept == ("finer",)
    assert worse.reason.startswith("not kept: relative MSE ")
    assert worse.before == finer.before
    assert (finer.before, finer.after) != (None, None)
    assert (finer.after or 0) < (finer.before or 0) < (worse.after or 0)
    assert finer.stderr is not None
    assert all(error > 0 for error in finer.stderr)
    assert {str(weight.scheme) for weight in after.seen[0].weights.values()} == {"int8"}
    assert found.state == after.seen[0]
    assert after.before == [("finer",)]
    assert not idle.kept


def test_an_error_or_nothing_to_do_is_the_reason_of_a_skipped_step() -> None:
    found = recovered(Shift("broken", 1.0, raises=ModelError("no gradient flows")), Shift("idle", 0.0))
    assert [decision.line for decision in found.decisions] == [
        "Shift skipped: no gradient flows (0 s)",
        "Shift skipped: nothing to shift (0 s)",
    ]
    assert found.decisions[1].details == {"amount": 0}
    assert not any(decision.kept for decision in found.decisions)


def test_an_error_that_is_not_foreseen_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        recovered(Shift("broken", 1.0, raises=ZeroDivisionError()))


def test_a_step_that_ran_out_of_time_is_named_kept_or_not() -> None:
    found = recovered(Shift("far", 3.0))
    assert found.kept == ()
    assert found.stopped == ("far",)
    assert found.decisions[0].reason.endswith(" on 48 held-out samples, significantly worse, by hand")


def test_hindered_steps_are_never_asked() -> None:
    module, step = mlp(), Shift("shift", 1.0)
    made, state = task(module, data(48))
    found = recover(made, state, data(48), {"shift": "switched off"}, steps=(step,))
    assert step.seen == []
    assert found.decisions == untried({"shift": "switched off"}, steps=(step,))
    assert found.decisions[0].line == "Shift skipped: switched off"
    assert found.state.weights == state.weights


@pytest.mark.parametrize(
    ("given", "off", "expected"),
    [
        (None, (), "no data to decide with"),
        ((data(24), data(24)), tuple(step.name for step in STEPS), "switched off"),
        ((data(24), data(1)), (), "1 held-out sample is too few to decide with"),
    ],
)
def test_what_hinders_all_steps_is_known_beforehand(given: tuple[Data, Data] | None, off: tuple[str, ...], expected: str) -> None:
    assert hindrances(mlp(), given, off) == dict.fromkeys((step.name for step in STEPS), expected)


def test_a_model_without_biases_hinders_their_correction_alone() -> None:
    module = nn.Linear(8, 4, bias=False).eval()
    expected = {"bias_correction": "no operation adds a bias or normalizes with running statistics"}
    assert hindrances(module, (data(24), data(24))) == expected
    assert hindrances(mlp(), (data(24), data(24))) == {}


class Contract:
    """What every registered step promises."""

    @pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
    def test_the_same_task_gives_the_same_proposal_and_leaves_all_as_it_was(self, step: Step) -> None:
        module, samples = mlp(), data(48)
        made, state = task(module, samples, "int3")
        before, given = bits(module), {name: weight.dequantize() for name, weight in state.weights.items()}
        first, again = step.propose(made, state), step.propose(made, state)
        assert bits(module) == before
        assert all(torch.equal(weight.dequantize(), given[name]) for name, weight in state.weights.items())
        assert first.changes
        assert not first.stopped
        assert _numbers(first) == _numbers(again)

    @pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
    def test_nothing_takes_a_byte_more(self, step: Step) -> None:
        made, state = task(mlp(), data(48), "int3-g8")
        found, stored = step.propose(made, state), made.module.state_dict()
        for name, weight in found.weights.items():
            assert _sizes(weight.pack()) == _sizes(state.weights[name].pack())
        assert _sizes(found.tensors) == _sizes({name: stored[name] for name in found.tensors})

    def test_names_and_titles_are_unique(self) -> None:
        choices: tuple[Callable[[Step], str], ...] = (lambda step: step.name, lambda step: step.title)
        assert all(len({choose(step) for step in STEPS}) == len(STEPS) for choose in choices)


class TestSteps(Contract):
    pass


def _numbers(proposal: Proposal) -> dict[str, list[float]]:
    weights = {name: weight.dequantize().flatten().tolist() for name, weight in proposal.weights.items()}
    return weights | {name: tensor.flatten().tolist() for name, tensor in proposal.tensors.items()}


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
