"""Training as a step of recovery."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpq.errors import ModelError
from mpq.models.layers.discover import discover
from mpq.models.running.fake_quantized import Variants
from mpq.models.running.metrics import RelativeMSE
from mpq.recovery.base import Limits, State, Task
from mpq.recovery.training import step
from mpq.recovery.training.settings import TrainSettings
from mpq.recovery.training.step import Training
from mpq.tensors.quantizers.registry import quantizer_named
from tests.models.small import data, mlp
from tests.small import schemes

(INT4,) = schemes("int4")
HOW = "7 of 8 steps over 5 samples at 0.5 times the usual rates, 2 times for codes"


def started() -> tuple[Task, State]:
    module, samples = mlp(), data(8)
    variants = Variants(module, discover(module, samples.batches).layers, quantizer_named("rtn"))
    state = State({name: variants.quantized(name, INT4) for name in variants.layers})
    return Task(variants, samples, RelativeMSE(), 11, Limits(1e12, 1)), state


@pytest.mark.parametrize("improved", [True, False])
def test_what_training_came_to_is_proposed_if_it_is_better(monkeypatch: pytest.MonkeyPatch, improved: bool) -> None:
    task, state = started()
    jobs: list[Any] = []
    line = SimpleNamespace(step=7, of=8, rate=0.5, code_rate=2.0, event="")
    found = SimpleNamespace(lines=[line], samples=5, seconds=1.26, improved=improved, state=state)

    def train(job: Any, **options: Any) -> Any:
        jobs.append((job, options))
        return found

    monkeypatch.setattr(step, "train", train)
    settings = TrainSettings("codes")
    proposal = Training(settings).propose(task, state)
    assert proposal.changes == improved
    assert (proposal.about, proposal.remark) == (
        (f"({settings.level})", f", {HOW}") if improved else (f"no gain on the samples kept aside, {HOW}", "")
    )
    assert proposal.details == {
        "level": settings.level,
        "steps": 7,
        "of": 8,
        "samples": 5,
        "rate": 0.5,
        "code_rate": 2.0,
        "seconds": 1.3,
    }
    ((job, options),) = jobs
    assert job.settings.seed == 11
    assert options == {"checkpoints": None, "on_progress": None, "on_line": None}
    assert (Training.name, Training.title) == ("training", "Training")


def test_a_rate_that_was_halved_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    task, state = started()
    back = SimpleNamespace(step=2, of=8, rate=0.25, code_rate=1.0, event="an error of NaN: back to step 2 with half the rate")
    last = SimpleNamespace(step=8, of=8, rate=0.25, code_rate=0.0, event="")
    found = SimpleNamespace(lines=[back, last], samples=5, seconds=1.0, improved=True, state=state)
    monkeypatch.setattr(step, "train", lambda *_, **__: found)
    told = "8 of 8 steps over 5 samples at 0.25 times the usual rates, which were halved 1 time after an error of NaN"
    assert Training(TrainSettings("scales")).propose(task, state).remark == f", {told}"


def test_a_model_without_gradients_is_refused_with_what_to_give_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    task, state = started()

    def frozen(layer: nn.Linear, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, layer.weight, layer.bias).detach()

    monkeypatch.setattr(nn.Linear, "forward", frozen)
    with pytest.raises(
        ModelError, match=r"^no gradient flows from relative_mse to the weights \(.*\): training needs gradients, so analyze"
    ):
        Training(TrainSettings("codes", rate=1.0)).propose(task, state)
