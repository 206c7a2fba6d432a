import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mpq
from mpq.data.dataset import Data, make_data
from mpq.errors import ModelError
from mpq.models.running.comparison import metric_named
from mpq.models.running.fake_quantized import Variants
from mpq.models.running.reference import Reference
from mpq.records.sensitivity import Sensitivity
from mpq.tensors.quantizers.rtn import RoundToNearest
from tests.models.small import bits, data, mlp
from tests.small import schemes

INT3, INT4, INT8 = schemes("int3", "int4", "int8")
PLAN = {"0": INT4, "3": INT3, "5": INT4}


def measured(module: nn.Module, found: Data, metric: str) -> tuple[mpq.PlanMeasurer, Sensitivity]:
    table = mpq.analyze(module, found, candidates=("3", "4", "8"), quantizer="rtn", metric=metric)
    return mpq.PlanMeasurer(module, found, table), table


@pytest.mark.parametrize("metric", ["kl_divergence", "relative_mse"])
def test_slopes_and_curvature_tell_what_changing_one_layer_of_a_plan_changes(metric: str) -> None:
    measurer, table = measured(mlp(), data(480, batch_size=64), metric)
    slopes, before = measurer.slopes(PLAN), measurer.calibration(PLAN).mean()
    changed = [pair for pair in table.errors if PLAN[pair[0]] != pair[1]]
    change = np.array([measurer.calibration(PLAN | {name: scheme}).mean() - before for name, scheme in changed])
    predicted = np.array([slopes.first[pair].mean() + slopes.second[pair].mean() for pair in changed])
    assert predicted == pytest.approx(change, rel=0.35, abs=0.15 * before)


@pytest.mark.parametrize("metric", ["kl_divergence", "relative_mse"])
def test_the_first_order_figures_are_the_derivatives_of_each_samples_error(metric: str) -> None:
    module, samples, step = mlp(), data(24), 0.05
    measurer, table = measured(module, samples, metric)
    slopes = measurer.slopes(PLAN)
    weights = Variants(module, table.layers, RoundToNearest())
    reference = Reference(module, samples.split(0.25, 0)[0], metric_named(metric))
    there = dict(weights.weights(PLAN))
    for (name, scheme), found in slopes.first.items():
        toward = weights.weight(name, scheme) - there[f"{name}.weight"]
        ahead, behind = (reference.errors(there | {f"{name}.weight": there[f"{name}.weight"] + t * toward}) for t in (step, -step))
        assert found == pytest.approx(((ahead - behind) / (2 * step)).numpy(), rel=0.02, abs=2e-4)


def test_a_scheme_that_the_plan_has_changes_nothing() -> None:
    measurer, _ = measured(mlp(), data(24), "kl_divergence")
    slopes = measurer.slopes(PLAN | {"0": INT8})
    assert not slopes.first["0", INT8].any()
    assert len(slopes.first["0", INT4]) == len(slopes.second["0", INT4]) == 18
    assert (slopes.second["0", INT4] >= 0).all()
    assert slopes.cost == 5


def test_the_model_and_its_flags_are_unchanged_and_the_figures_the_same_again() -> None:
    module = mlp()
    before = bits(module)
    measurer, _ = measured(module, data(), "kl_divergence")
    first, again = measurer.slopes(PLAN), measurer.slopes(PLAN)
    assert bits(module) == before
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert all((first.first[pair] == again.first[pair]).all() for pair in first.first)


class Detached(nn.Module):
    """Computes without its gradient graph."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).detach()  # type: ignore[no-any-return]


def test_a_model_without_gradients_says_so() -> None:
    measurer, _ = measured(Detached().eval(), data(), "kl_divergence")
    with pytest.raises(ModelError, match=r"^the model gives no gradients: its outputs do not depend on its parameters$"):
        measurer.slopes({f"body.{name}": scheme for name, scheme in PLAN.items()})


def test_a_metric_without_a_quadratic_form_says_so() -> None:
    measurer, _ = measured(mlp(), data(), "top1")
    with pytest.raises(ModelError, match=r"^(metric top1 has no gradient|the model gives no gradients)"):
        measurer.slopes(PLAN)


def test_a_model_that_takes_one_batch_size_gives_a_figure_for_each_batch() -> None:
    whole = make_data(data(24).batches, source="memory", fixed_batch=8)
    measurer, _ = measured(mlp(), whole, "kl_divergence")
    assert len(measurer.slopes(PLAN).first["0", INT8]) == 2


def test_gradients_of_the_caller_survive() -> None:
    module = mlp()
    weight = module.get_parameter("0.weight")
    weight.grad = torch.ones_like(weight)
    measurer, _ = measured(module, data(), "kl_divergence")
    measurer.slopes(PLAN)
    assert weight.grad is not None
    assert bool((weight.grad == 1).all())
