"""Matches the layers of a plan with the weights of a model, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from torch import Tensor

from mpq.errors import ApplyError, MismatchError
from mpq.models.layers.discover import DTYPES
from mpq.models.layers.state_tensors import state_of, tied_names
from mpq.models.sources.loaded import LoadedModel
from mpq.records.layer import Layer
from mpq.records.plan import Plan


def plan_layers(plan: Plan, model: LoadedModel) -> list[Layer]:
    """The layers of `plan` in `model`, in the plan's order.

    Raises:
        MismatchError: if the model is not the one that the plan was made for, or a weight has a different shape.
        ApplyError: if the plan names layers that the model does not have.
    """
    if plan.model.get("sha256") != model.sha256:
        raise MismatchError(
            f"the plan was made for a model with sha256 {str(plan.model.get('sha256'))[:12]}…, but this model has {model.sha256[:12]}…: "
            "give the plan's model, or analyze this one"
        )
    state = state_of(model.module)
    names = {names[0]: names for names in tied_names(state)}
    missing = [name for name in plan.layers if _parameter(name, state) not in names]
    if missing:
        close = get_close_matches(missing[0], [name.removesuffix(".weight") for name in names], n=1, cutoff=0.0)
        hint = f": did you mean '{close[0]}'?" if close else ""
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ApplyError(f"the plan names '{missing[0]}'{others}, which the model does not have{hint}")
    return [_layer(name, plan, state, names) for name in plan.layers]


def _parameter(name: str, state: Mapping[str, Tensor]) -> str:
    return name if name in state else f"{name}.weight"


def _layer(name: str, plan: Plan, state: Mapping[str, Tensor], names: Mapping[str, tuple[str, ...]]) -> Layer:
    tensor = state[_parameter(name, state)]
    if tensor.dtype not in DTYPES:
        raise ApplyError(f"'{name}' is {tensor.dtype}, not a floating-point weight: remove it from the plan")
    return plan.layer(name, names[_parameter(name, state)], tuple(tensor.shape), DTYPES[tensor.dtype], source="the model")
