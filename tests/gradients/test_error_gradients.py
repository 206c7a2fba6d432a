import pytest
import torch

from mpq.data.dataset import data_from_batches
from mpq.errors import ModelError
from mpq.gradients.error_gradients import differentiable, error_gradients
from mpq.models.running.metrics import KLDivergence, Metric, RelativeMSE, Top1Disagreement
from mpq.models.running.reference import Reference
from tests.models.small import MODELS, bits, data, mlp, up_and_down


@pytest.mark.parametrize("metric", [RelativeMSE(), KLDivergence()])
def test_gradients_are_those_of_finite_differences(metric: Metric) -> None:
    module = mlp()
    reference = Reference(module, data(), metric)
    values = {"0.weight": module.state_dict()["0.weight"] * 1.5, "2.bias": module.state_dict()["2.bias"] + 0.2}
    error, found = error_gradients(reference, 0, values, ["0.weight", "2.bias"])
    assert error == pytest.approx(float(reference.batch_errors(0, values).mean()), rel=1e-5)
    for name, gradient in found.items():
        step = 0.01 * gradient / gradient.norm()
        after, before = (float(reference.batch_errors(0, {**values, name: values[name] + sign * step}).mean()) for sign in (1, -1))
        assert (after - before) / 0.02 == pytest.approx(float(gradient.norm()), rel=0.02)


def test_buffers_may_have_other_values_without_being_asked_for() -> None:
    module = up_and_down()
    reference = Reference(module, data(8, 2, 6, 6), RelativeMSE())
    values = {"norm.running_mean": module.state_dict()["norm.running_mean"] + 1}
    error, found = error_gradients(reference, 0, values, ["norm.weight"])
    assert error > 0
    assert list(found) == ["norm.weight"]


@pytest.mark.parametrize("kind", MODELS)
def test_the_module_is_put_back(kind: str) -> None:
    module, inputs = MODELS[kind][0](), MODELS[kind][1]
    before, flags = bits(module), [parameter.requires_grad for parameter in module.parameters()]
    name = next(name for name, _ in module.named_parameters())
    value = module.state_dict()[name] * 0.5
    _, found = error_gradients(Reference(module, data_from_batches([inputs]), RelativeMSE()), 0, {name: value}, [name])
    assert list(found) == [name]
    assert bits(module) == before
    assert [parameter.requires_grad for parameter in module.parameters()] == flags
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_metric_without_gradient_is_refused() -> None:
    reference = Reference(mlp(), data(), Top1Disagreement())
    with pytest.raises(ModelError, match=r"^no gradient flows from top1 to the weights "):
        error_gradients(reference, 0, {}, ["0.weight"])


def test_gradients_of_others_are_kept() -> None:
    module = mlp()
    kept = module.get_parameter("5.bias")
    kept.grad = torch.ones_like(kept)
    with differentiable(module, [module.get_parameter("0.weight")]):
        assert kept.grad is None
        assert not kept.requires_grad
    assert torch.equal(kept.grad, torch.ones(4))
    assert kept.requires_grad
