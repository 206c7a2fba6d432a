from dataclasses import replace

import pytest

from mpq.apply.plan_layers import plan_layers
from mpq.errors import ApplyError, MismatchError
from mpq.models.sources.load import from_module
from mpq.records.plan import Plan
from tests.apply.making import in_memory, layers_of, plan_of
from tests.models.small import MODELS, mlp


def renamed(plan: Plan, old: str, new: str) -> Plan:
    return replace(
        plan,
        layers={new if name == old else name: scheme for name, scheme in plan.layers.items()},
        shapes={new if name == old else name: shape for name, shape in plan.shapes.items()},
    )


@pytest.mark.parametrize("kind", MODELS)
def test_the_layers_of_a_plan_are_those_of_its_analysis(kind: str) -> None:
    model = in_memory(kind)
    plan = plan_of(model, kind)
    expected = [(x.name, x.parameters, x.shape, x.axes, x.dtype) for x in layers_of(model, kind)]
    assert [(x.name, x.parameters, x.shape, x.axes, x.dtype) for x in plan_layers(plan, model)] == expected


def test_another_model_is_refused_with_both_hashes() -> None:
    plan, other = plan_of(in_memory("mlp"), "mlp"), from_module(mlp(1))
    with pytest.raises(MismatchError) as error:
        plan_layers(plan, other)
    hashes = f"{plan.model['sha256'][:12]}…, but this model has {other.sha256[:12]}…"
    assert str(error.value) == f"the plan was made for a model with sha256 {hashes}: give the plan's model, or analyze this one"


def test_an_unknown_layer_is_refused_with_the_closest_name() -> None:
    model = in_memory("conv")
    with pytest.raises(ApplyError) as error:
        plan_layers(renamed(plan_of(model, "conv"), "down", "dwon"), model)
    assert str(error.value) == "the plan names 'dwon', which the model does not have: did you mean 'down'?"
    with pytest.raises(ApplyError, match=r"^the plan names 'x' and 1 more, which the model does not have: did you mean '.*'\?$"):
        plan_layers(renamed(renamed(plan_of(model, "conv"), "down", "x"), "up", "y"), model)


def test_an_alias_is_no_layer() -> None:
    model = in_memory("tied")
    with pytest.raises(ApplyError, match=r"^the plan names 'head', which the model does not have"):
        plan_layers(renamed(plan_of(model, "tied"), "embedding", "head"), model)


def test_a_weight_of_another_shape_is_refused() -> None:
    model = in_memory("mlp")
    plan = plan_of(model, "mlp")
    with pytest.raises(MismatchError) as error:
        plan_layers(replace(plan, shapes={**plan.shapes, "0": (8, 16)}), model)
    assert str(error.value) == "'0' is 8x16 in the plan and 16x8 in the model: analyze it again"


def test_a_tensor_of_integers_is_no_layer() -> None:
    model = in_memory("conv")
    plan = renamed(plan_of(model, "conv"), "down", "steps")
    with pytest.raises(ApplyError) as error:
        plan_layers(plan, model)
    assert str(error.value) == "'steps' is torch.int16, not a floating-point weight: remove it from the plan"
