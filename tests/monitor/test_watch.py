"""A monitor sees a share of the calls, finds what has drifted, and leaves the model as it was."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from mpq.errors import UsageError
from mpq.evidence.drift import Alarm
from mpq.monitor.watch import monitor
from mpq.records.baseline import Baseline
from mpq.records.plan import Plan
from mpq.records.sensitivity_header import Rest
from tests.models.small import saved_and_loaded
from tests.monitor.conftest import data, model, run


def found(alarms: list[Alarm]) -> set[tuple[str, str]]:
    return {(each.kind, each.name) for each in alarms}


def test_data_of_the_same_kind_raises_no_alarm_in_10000_samples(baseline: Baseline) -> None:
    module = model()
    with monitor(module, baseline, sample=1.0) as watching:
        run(module, data(1, calls=1250))
        assert (watching.calls, watching.sampled, watching.alarms()) == (1250, 1250, [])


@pytest.mark.parametrize(
    ("change", "alarm"),
    [
        (lambda x: x * 3, ("drift", "input")),
        (lambda x: x * 64, ("range", "input")),
        (lambda x: x.where(x < 2, torch.nan), ("not finite", "2.input")),
        (lambda x: x * 0.1, ("drift", "output margin")),
    ],
)
def test_changed_data_is_found(baseline: Baseline, change: Callable[[Tensor], Tensor], alarm: tuple[str, str]) -> None:
    module = model()
    with monitor(module, baseline, sample=1.0) as watching:
        run(module, data(2, change=change))
        assert alarm in found(watching.alarms())


def test_a_share_of_the_calls_is_seen_the_same_for_the_same_seed(baseline: Baseline) -> None:
    module = model()
    seen = []
    for _ in range(2):
        with monitor(module, baseline, sample=0.1, seed=3) as watching:
            run(module, data(1, calls=300))
            seen.append(watching.sampled)
    assert seen[0] == seen[1]
    assert 15 <= seen[0] <= 45


def test_the_model_is_as_it_was(baseline: Baseline) -> None:
    module, x = model(), data(5)[0]
    before = module(x)
    watching = monitor(module, baseline, sample=1.0)
    assert torch.equal(module(x), before)
    with pytest.raises(RuntimeError):
        module(torch.randn(2, 3))
    assert not module[0]._forward_pre_hooks
    watching.close()
    assert not module._forward_hooks
    assert not module._forward_pre_hooks


def test_a_shadow_compares_with_the_reference(baseline: Baseline) -> None:
    reference = model()
    broken = copy.deepcopy(reference)
    with torch.no_grad():
        broken.get_parameter("2.weight").mul_(-8)
    for module, alarmed in ((copy.deepcopy(reference), set()), (broken, {("kl", "output"), ("agreement", "output")})):
        with monitor(module, baseline, sample=0.0, shadow=1.0, reference=reference, most_kl=0.05, least_agreement=0.9) as watching:
            run(module, data(1, calls=400))
            assert found(watching.alarms()) == alarmed
            assert watching.agreement.count == 400


class Masked(nn.Module):
    """Logits of 4 classes per position, or their probabilities; one class is suppressed, and padding gives what it is told to."""

    def __init__(self, shift: float, *, probabilities: bool = False) -> None:
        super().__init__()
        self.shift, self.probabilities = shift, probabilities

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        logits = x + self.shift * torch.tensor([1.0, 0.0, 0.0, 0.0])
        logits = logits.where(attention_mask.unsqueeze(-1) > 0, torch.tensor([9.0 * self.shift, 0.0, 5.0, 0.0]))
        logits = logits.index_fill(-1, torch.tensor([3]), -torch.inf)
        return logits.softmax(-1) if self.probabilities else logits


@pytest.mark.parametrize("probabilities", [False, True])
def test_a_shadow_leaves_padding_and_suppressed_classes_out_and_takes_probabilities_as_they_are(
    baseline: Baseline, *, probabilities: bool
) -> None:
    x, mask = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([[1] * 5, [1, 1, 0, 0, 0], [0] * 5])
    before, after = (Masked(shift, probabilities=probabilities) for shift in (0.0, 0.7))
    with monitor(after, baseline, sample=0.0, shadow=1.0, reference=before) as watching:
        after(x, attention_mask=mask)
    rows = x[..., :3]
    first, second = rows.log_softmax(-1), (rows + torch.tensor([0.7, 0.0, 0.0])).log_softmax(-1)
    errors = (first.exp() * (first - second)).sum(-1)
    assert watching.divergence.mean == pytest.approx(float((errors[0].mean() + errors[1, :2].mean()) / 2), rel=1e-4)
    same = (first.argmax(-1) == second.argmax(-1)).float()
    assert watching.agreement.mean == pytest.approx(float((same[0].mean() + same[1, :2].mean()) / 2))


def test_wrong_shares_are_refused(baseline: Baseline) -> None:
    with pytest.raises(UsageError, match="sample=2 is not a share of the calls: give a number from 0 to 1"):
        monitor(model(), baseline, sample=2)
    with pytest.raises(UsageError, match=r"shadow=0\.5 needs the unquantized model: give reference="):
        monitor(model(), baseline, shadow=0.5)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_programs_of_torchscript_are_watched_from_outside(baseline: Baseline) -> None:
    program = saved_and_loaded(torch.jit.script(model()))
    with monitor(program, baseline, sample=1.0, layers=()) as watching:
        run(program, data(1, calls=3))
        assert (watching.calls, watching.sampled, sorted(watching.sketches)) == (
            3,
            3,
            ["input", "output", "output entropy", "output margin"],
        )
    with pytest.raises(UsageError, match="layers inside a TorchScript program cannot be watched: leave `layers` out, or load the model as"):
        monitor(program, baseline, layers=["2"])


def test_the_limit_is_twice_the_held_out_error_of_the_plan(baseline: Baseline) -> None:
    evidence = {"metric": "kl_divergence", "measured": {"held_out": 0.02}}
    plan = Plan({}, None, "rtn", {}, {}, 0, Rest(0, 0, 0, 0))
    plan = replace(plan, evidence=evidence | {"assignment": plan.assignment})
    assert monitor(model(), baseline, plan=plan).limits == {"most_kl": 0.04, "least_agreement": None}
    assert monitor(model(), baseline, plan=plan, most_kl=0.5).limits["most_kl"] == 0.5
    with pytest.raises(UsageError, match=r"the plan has no held-out KL divergence \(its metric is relative_mse\): give most_kl instead"):
        monitor(model(), baseline, plan=replace(plan, evidence={**evidence, "metric": "relative_mse"}))


def test_the_evidence_of_a_plan_that_was_edited_is_refused(baseline: Baseline) -> None:
    plan = Plan({}, None, "rtn", {}, {}, 0, Rest(0, 0, 0, 0))
    edited = replace(plan, evidence={"metric": "kl_divergence", "measured": {"held_out": 0.02}, "assignment": "0" * len(plan.assignment)})
    with pytest.raises(UsageError) as error:
        monitor(model(), baseline, plan=edited)
    told = "the layers of the plan were edited after they were measured: run `mpq search` again, or give most_kl instead of plan"
    assert str(error.value) == told
    assert monitor(model(), baseline, plan=edited, most_kl=0.5).limits["most_kl"] == 0.5


@pytest.mark.parametrize("layer", [nn.Dropout(0.3), nn.BatchNorm1d(16)])
def test_a_model_in_training_mode_is_refused(baseline: Baseline, layer: nn.Module) -> None:
    module = nn.Sequential(layer, model())
    with pytest.raises(UsageError, match=r"'0' of the model is in training mode, where outputs differ: call model\.eval\(\)"):
        monitor(module, baseline)
    with pytest.raises(UsageError, match=r"'0' of the reference is in training mode.*: call reference\.eval\(\)"):
        monitor(model(), baseline, shadow=1, reference=module)


@pytest.mark.parametrize("shape", [(8, 1), (8, 2, 2, 4), (8,)])
def test_an_output_without_classes_is_not_said_to_agree(baseline: Baseline, shape: tuple[int, ...]) -> None:
    class Shaped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten()[: torch.Size(shape).numel()].reshape(shape)

    module = Shaped()
    with monitor(module, baseline, sample=1, shadow=1, reference=Shaped(), most_kl=0.1) as watching:
        with pytest.warns(UserWarning, match="calls are not compared with the reference"):
            module(torch.randn(8, 16))
        module(torch.randn(8, 16))  # it is said once
        assert (watching.divergence.count, watching.agreement.count) == (0, 0)
        assert sorted(watching.sketches) == ["input", "output"]
