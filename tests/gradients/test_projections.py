"""One backward pass with a random projection gives every layer's inner product."""

import pytest
import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.errors import ModelError, NumericsError
from mpq.gradients.projections import gradients_of, project
from mpq.models.layers.discover import discover
from mpq.models.running.forward import forward
from mpq.models.running.metrics import KLDivergence, Metric, RelativeMSE, Top1Disagreement
from mpq.models.running.swap import swapped
from mpq.records.layer import Layer
from tests.models.small import bits, inputs, mlp

SAMPLE = Batch((inputs(1, 8),))


def layers_of(module: nn.Module, batch: Batch = SAMPLE) -> tuple[Layer, ...]:
    return discover(module, [batch]).layers


def received(module: nn.Module, metric: Metric, draws: int, batch: Batch = SAMPLE, seed: int = 0) -> list[dict[str, Tensor]]:
    found: list[dict[str, Tensor]] = [{} for _ in range(draws)]
    project(
        module,
        layers_of(module, batch),
        batch,
        metric,
        draws=draws,
        seed=seed,
        receive=lambda draw: lambda layer, gradient: found[draw].__setitem__(layer.name, gradient.clone()),
    )
    return found


@pytest.mark.parametrize("metric", [KLDivergence(), RelativeMSE()])
def test_the_mean_square_of_the_products_is_the_error_of_small_changes_together(metric: Metric) -> None:
    module = mlp()
    changes = {name: 1e-3 * inputs(*module.get_parameter(f"{name}.weight").shape, seed=5) for name in ("0", "3", "5")}
    values = [sum(float((gradient * changes[name]).sum()) for name, gradient in draw.items()) for draw in received(module, metric, 800)]
    prepared = metric.prepare(forward(module, SAMPLE))
    moved = {f"{name}.weight": module.get_parameter(f"{name}.weight").detach() + change for name, change in changes.items()}
    with swapped(module, moved):
        error = float(metric.errors(prepared, forward(module, SAMPLE)).mean())
    assert sum(value**2 for value in values) / len(values) == pytest.approx(error, rel=0.15)


def test_every_layer_is_received_once_per_draw_in_float32() -> None:
    module = mlp().bfloat16()
    batch = Batch((inputs(1, 8).bfloat16(),))
    for draw in received(module, RelativeMSE(), 3, batch):
        assert {name: gradient.dtype for name, gradient in draw.items()} == dict.fromkeys(("0", "3", "5"), torch.float32)
        assert draw["0"].shape == (16, 8)


def test_a_seed_gives_the_same_draws_and_another_seed_others() -> None:
    module = mlp()
    first, again, other = (received(module, KLDivergence(), 2, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(one[name], two[name]) for one, two in zip(first, again, strict=True) for name in one)
    assert not torch.equal(first[0]["0"], first[1]["0"])
    assert not torch.equal(first[0]["0"], other[0]["0"])


def test_the_model_its_flags_and_the_callers_gradients_are_as_they_were() -> None:
    module = mlp()
    module.get_parameter("3.weight").requires_grad_(False)
    kept = module.get_parameter("0.weight").grad = torch.ones(16, 8)
    before = bits(module)
    assert set(received(module, RelativeMSE(), 1)[0]) == {"0", "3", "5"}
    assert bits(module) == before
    assert module.get_parameter("0.weight").grad is kept
    assert torch.equal(kept, torch.ones(16, 8))
    assert not module.get_parameter("3.weight").requires_grad


def test_no_more_than_one_gradient_is_alive() -> None:
    module = mlp()
    alive: list[int] = []

    def receive(layer: Layer, _: Tensor) -> None:
        alive.append(sum(parameter.grad is not None for parameter in module.parameters()))

    project(module, layers_of(module), SAMPLE, RelativeMSE(), draws=2, seed=0, receive=lambda _: receive)
    assert alive == [1] * 6


def test_a_layer_that_was_not_reached_is_not_received() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.a(x) + self.b(x).detach()
            return result

    assert list(received(Two().eval(), RelativeMSE(), 1)[0]) == ["a"]


def test_a_metric_without_a_quadratic_form_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^metric top1 has no gradient: use --method measure, or --metric kl_divergence or relative_mse$"):
        received(mlp(), Top1Disagreement(), 1)


def test_outputs_that_are_not_finite_are_refused() -> None:
    module = mlp()
    module.get_parameter("5.bias").data[0] = float("nan")
    with pytest.raises(NumericsError, match=r"^the unquantized model gives NaN or infinity on the calibration data"):
        received(module, KLDivergence(), 1)


def test_hooks_are_gone_after_an_error() -> None:
    module = mlp()
    taken: list[str] = []
    with gradients_of(module, layers_of(module)) as collect:
        with pytest.raises(ValueError, match=r"^no$"), collect(lambda layer, _: taken.append(layer.name)):
            raise ValueError("no")
        with torch.enable_grad():
            forward(module, SAMPLE, gradients=True)[0].sum().backward()  # type: ignore[no-untyped-call]
    assert taken == []
