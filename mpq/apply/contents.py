"""The contents of an artifact, checked against its plan before anything is written."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mpq.apply.artifact_writer import Contents
from mpq.apply.plan_layers import plan_layers
from mpq.data.dataset import Split
from mpq.errors import ApplyError, MismatchError
from mpq.models.layers.state_tensors import aliases_of, state_of
from mpq.models.layers.unquantized_tensors import inventory, rest_tensors
from mpq.models.memory.offload import used
from mpq.models.running.choose_comparison import choose_comparison
from mpq.models.running.comparison import comparison_from
from mpq.models.running.forward import forward, named
from mpq.models.running.metric_registry import METRICS
from mpq.models.running.metrics import Metric
from mpq.models.sources.loaded import LoadedModel
from mpq.records.artifact import ArtifactHeader
from mpq.records.layer import Layer
from mpq.records.plan import Plan
from mpq.records.plan_budget import check_plan_budget
from mpq.records.sensitivity import MAIN_OUTPUTS
from mpq.records.stored_sketches import StoredSketches
from mpq.recovery.run import Recovered
from mpq.tensors.narrow import narrowed
from mpq.tensors.quantized import QuantizedWeight, unpack_weight


def checked_layers(plan: Plan, model: LoadedModel) -> list[Layer]:
    """The layers of a plan, after checking that it matches the model and is within its own budget.

    Raises:
        MismatchError: if the constant part of the artifact would differ from the plan's.
    """
    layers = plan_layers(plan, model)
    rest = inventory(model, layers, source=plan.model, quantizer=plan.quantizer, dtype=plan.rest.dtype)
    if rest != plan.rest:
        raise MismatchError(
            f"the plan's 'rest' says {plan.rest.data_bytes} bytes of data and {plan.rest.header_bytes} of header, this model has "
            f"{rest.data_bytes} and {rest.header_bytes}: analyze and search again with these versions of mpq and torch"
        )
    check_plan_budget(plan)
    return layers


def contents_of(
    plan: Plan,
    model: LoadedModel,
    layers: list[Layer],
    recovered: Recovered,
    one: Callable[[str], QuantizedWeight],
    sketches: StoredSketches | None = None,
) -> Contents:
    """The contents to write, checked against the plan.

    Args:
        plan: the plan.
        model: the model that the plan was made for.
        layers: its layers.
        recovered: the results of the recovery steps.
        one: gives the weight of a layer by name, if `recovered` has none.
        sketches: of the calibration data, if the plan wants them.

    Raises:
        ApplyError: if the file would not have the size that the plan predicts.
    """
    aliases, tensors = aliases_of(state_of(model.module)), rest_tensors(model, layers, plan.rest.dtype)
    foreign = min(recovered.state.tensors.keys() - tensors.keys(), default=None)
    if foreign is not None:
        raise ApplyError(f"recovery changed '{foreign}', which is not stored by itself: this is a bug in mpq, please report it")
    header = ArtifactHeader(
        plan.model,
        plan.quantizer,
        tuple(layers),
        plan.layers,
        aliases,
        model.config or {},
        recovered.kept,
        recovered.stopped,
        plan.rest.dtype,
        0 if plan.rest.dtype is None else plan.rest.original_bytes,
        activations=plan.activations,
        sketches=sketches,
    )
    weights = recovered.state.weights
    changed = {name: narrowed(tensor, plan.rest.dtype, name) for name, tensor in recovered.state.tensors.items()}
    contents = Contents(header, {**tensors, **changed}, lambda name: _packed(name, weights.get(name) or one(name)))
    found, predicted = contents.file_bytes, plan.size.file_bytes
    if found != predicted:
        raise ApplyError(f"the file would have {found} bytes, the plan predicts {predicted}: this is a bug in mpq, please report it")
    return contents


def _packed(name: str, weight: QuantizedWeight) -> dict[str, Tensor]:
    """The packed parts of a layer, after checking that they unpack correctly."""
    used(weight.codes)
    packed = weight.pack()
    if not torch.equal(unpack_weight(packed, weight.scheme, weight.matrix).dequantize(), weight.dequantize()):
        raise ApplyError(f"layer '{name}' at {weight.scheme} does not read back as it was packed: this is a bug in mpq, please report it")
    return packed


def metric_of(plan: Plan, model: LoadedModel, split: Split) -> Metric:
    """The metric of a plan's analysis."""
    recorded = plan.evidence.get("outputs")
    if recorded:
        return comparison_from({"outputs": recorded})
    name, batches = str(plan.evidence.get("metric")), split.first.batches
    returned = named(forward(model.module, batches[0]))
    main = [each for each in MAIN_OUTPUTS if each in returned][:1]  # a plan that names no outputs compared this one alone
    return choose_comparison(model.module, batches, metric=name if name in METRICS else "auto", outputs=main).comparison
