"""Train under a plan in a loop of one's own: `prepare` puts trainable quantized weights into a model, `convert` writes the artifact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from mpq.activations.equalized import folded
from mpq.activations.rounding import changes_of, hooked
from mpq.apply.artifact_writer import check_folder, write_artifact
from mpq.apply.contents import checked_layers, contents_of
from mpq.apply.run import Applied
from mpq.apply.sketches import without_sketches
from mpq.apply.train import header_under, stored_state
from mpq.config import Level
from mpq.errors import ApplyError, NumericsError, UsageError
from mpq.models.running.fake_quantized import Variants, as_parameter
from mpq.models.running.swap import tensor_of
from mpq.models.sources.load import from_module
from mpq.models.sources.loaded import LoadedModel
from mpq.records.layer import Layer
from mpq.records.plan import Plan, read_plan
from mpq.recovery.base import Decision, State
from mpq.recovery.run import Recovered
from mpq.recovery.training.parametrized import RoundedWeight, TrainedWeight
from mpq.recovery.training.settings import TrainSettings, level_for
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.registry import quantizer_named

_NOTE = "_mpq_prepared"


@dataclass(frozen=True)
class _Prepared:
    """What `convert` needs to know: kept as an attribute of the module, so that copies of it have it too."""

    model: LoadedModel
    plan: Plan
    layers: list[Layer]
    fixed: dict[str, QuantizedWeight]
    hooks: list[RemovableHandle]


def prepare(
    model: nn.Module | LoadedModel, plan: Plan | Path | str, *, level: Level | None = None, artifact: Path | str | None = None
) -> nn.Module:
    """Put trainable quantized weights into a model, in place, for a training loop of your own; end with `mpq.convert`.

    Each layer of the plan gets a parametrization: the forward pass sees the weight as it would be stored, and gradients reach what is
    behind its scales and codes. Any optimizer over `model.parameters()` works; an Adam with a rate of 1e-3 moves everything at the rates
    that `mpq recover` begins from. Layers whose scales are powers of two, and weights that are buffers, stay at their quantized values.
    Tensors between layers that the plan makes integers are rounded in every call, in the ranges of the plan or the artifact.
    For distillation, keep a copy of the model from before.

    Args:
        model: the model that the plan was made for.
        plan: the plan or its file.
        level: what moves in quantized layers: "scales", "codes" (those of integers, too) or "weights" (all codes); None: "weights" if the
            plan has 2 bits or less anywhere, else "codes".
        artifact: what `mpq.apply` wrote for the plan, to begin from; None quantizes by the plan's quantizer without data.

    Returns:
        The module, in the mode it was in.

    Raises:
        MismatchError: if the model or the artifact is not the plan's.
        ApplyError: if a weight cannot be parametrized, as those of an LSTM, of TorchScript, and of models whose weights stay on disk.
        UsageError: if the model is prepared already, or the level is unknown.
    """
    wanted = plan if isinstance(plan, Plan) else read_plan(Path(plan))
    _check_unprepared(model.module if isinstance(model, LoadedModel) else model)
    loaded = model if isinstance(model, LoadedModel) else from_module(model)
    module, layers = loaded.module, checked_layers(wanted, loaded)
    _check_can_train(loaded, layers)
    codes = TrainSettings(level or level_for(wanted.layers.values())[0]).codes
    for name, value in folded(module, wanted.equalization).items():
        tensor_of(module, name).data.copy_(value)  # the module computes the same
    if artifact is not None:
        wanted = replace(wanted, activations=header_under(wanted, Path(artifact)).activations)
    state = _first_state(loaded, wanted, layers, artifact)
    fixed: dict[str, QuantizedWeight] = {}
    for layer in layers:
        weight, parameter = state.weights[layer.name], tensor_of(module, layer.parameters[0])
        if not isinstance(parameter, nn.Parameter) or (weight.scales is not None and weight.scales.dtype != torch.float16):
            fixed[layer.name] = weight
            parameter.requires_grad_(False)
            parameter.data.copy_(as_parameter(weight, layer))
            continue
        trained = RoundedWeight(weight, layer) if weight.scales is None else TrainedWeight(weight, layer, parameter, codes)
        _put(module, layer, trained)
    for name, tensor in state.tensors.items():
        tensor_of(module, name).data.copy_(tensor)
    hooks = hooked(module, changes_of(wanted.activations)) if wanted.activations else []
    setattr(module, _NOTE, _Prepared(loaded, wanted, layers, fixed, hooks))
    return module


def convert(model: nn.Module, output: Path | str) -> Applied:
    """Write the artifact of a model that `mpq.prepare` prepared, of exactly the bytes of its plan.

    The parametrizations are removed: the module has its own parameters again, on the CPU, with the values that the artifact stores. It no
    longer rounds tensors between layers; the model that `mpq.load` gives does.

    Args:
        model: the prepared module, trained, or one that wraps it as `module`.
        output: path of the artifact, usually `*.mpq.safetensors`.

    Raises:
        UsageError: if the model was not prepared, or its parameters are sharded over processes (FSDP).
        NumericsError: if training gave numbers that are not finite.
        MismatchError: if tensors outside of the plan's layers have other shapes or dtypes than before.
    """
    module, found = _prepared(model)
    check_folder(Path(output))
    _check_finite(module)
    module.cpu()
    weights = dict(found.fixed)
    for layer in found.layers:
        if layer.name not in weights:
            weights[layer.name] = _taken(module, layer)
    for hook in found.hooks:
        hook.remove()
    delattr(module, _NOTE)
    loaded = replace(found.model, module=module)
    layers = checked_layers(found.plan, loaded)
    decision = Decision("training", "Training", kept=True, reason="")
    plan, remarks = without_sketches(found.plan)
    contents = contents_of(plan, loaded, layers, Recovered(State(weights), (decision,)), weights.__getitem__)
    contents = replace(contents, fingerprint=True)
    write_artifact(Path(output), contents)
    original = found.plan.original_bytes + found.plan.rest.original_bytes
    return Applied(Path(output), contents.file_bytes, original, (decision,), {}, remarks=remarks)


def _first_state(model: LoadedModel, plan: Plan, layers: list[Layer], artifact: Path | str | None) -> State:
    if artifact is not None:
        return stored_state(Path(artifact), header_under(plan, Path(artifact)), layers, model)
    variants = Variants(model.module, layers, quantizer_named(plan.quantizer), cache_bytes=0)
    return State({layer.name: variants.quantized(layer.name, plan.layers[layer.name]) for layer in layers})


def _places(module: nn.Module, layer: Layer) -> Iterator[tuple[nn.Module, str]]:
    """The modules that hold the parameter of a layer, each once, and its name there."""
    seen = set[tuple[int, str]]()
    for name in layer.parameters:
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        if (id(owner), leaf) not in seen:
            seen.add((id(owner), leaf))
            yield owner, leaf


def _put(module: nn.Module, layer: Layer, trained: nn.Module) -> None:
    """One parametrization, and one set of parameters, in all places of a layer."""
    first: nn.Module | None = None
    for owner, leaf in _places(module, layer):
        parametrize.register_parametrization(owner, leaf, trained if first is None else nn.Identity(), unsafe=True)
        listed = _parametrizations(owner)
        first = listed[leaf] if first is None else first
        listed[leaf] = first


def _taken(module: nn.Module, layer: Layer) -> QuantizedWeight:
    """The weight of a layer as it would be stored; the parameter is put back in all its places, with that value."""
    found: QuantizedWeight | None = None
    parameter: nn.Parameter | None = None
    for owner, leaf in _places(module, layer):
        if found is None:
            found = _quantized(_parametrizations(owner)[leaf])
            parameter = nn.Parameter(as_parameter(found, layer))
        _leave_copies(owner)
        parametrize.remove_parametrizations(owner, leaf, leave_parametrized=True)
        setattr(owner, leaf, parameter)
    assert found is not None
    return found


def _leave_copies(owner: nn.Module) -> None:
    """Give a parametrized module a class of its own: copies share one, and removing a parametrization changes it."""
    shared = type(owner)
    owner.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))


def _quantized(listed: nn.Module) -> QuantizedWeight:
    assert isinstance(listed, parametrize.ParametrizationList)
    moving = [getattr(listed, name) for name in ("original", "original0", "original1") if hasattr(listed, name)]
    (trained,) = listed
    assert isinstance(trained, (TrainedWeight, RoundedWeight))
    return trained.quantized(*moving)


def _parametrizations(owner: nn.Module) -> nn.ModuleDict:
    found = owner.parametrizations
    assert isinstance(found, nn.ModuleDict)
    return found


def _prepared(model: nn.Module) -> tuple[nn.Module, _Prepared]:
    for module in (model, getattr(model, "module", None)):
        found = getattr(module, _NOTE, None)
        if isinstance(module, nn.Module) and isinstance(found, _Prepared):
            return module, found
    raise UsageError("this model was not prepared: call mpq.prepare(model, plan) before training it")


def _check_unprepared(module: nn.Module) -> None:
    if hasattr(module, _NOTE):
        raise UsageError("this model is prepared already: train it, then call mpq.convert")


def _check_can_train(model: LoadedModel, layers: list[Layer]) -> None:
    if isinstance(model.module, torch.jit.ScriptModule):
        raise ApplyError("a TorchScript model cannot be prepared: give the module it was made from, or use `mpq recover`")
    if model.offload is not None:
        raise ApplyError("a model whose weights stay on disk cannot be prepared: load it without offloading")
    for layer in layers:
        for owner, _ in _places(model.module, layer):
            if isinstance(owner, nn.RNNBase):
                kind = type(owner).__name__
                raise ApplyError(f"'{layer.name}' cannot be prepared, for {kind} keeps a list of its weights: use `mpq recover`")
            if isinstance(owner, parametrize.ParametrizationList):
                raise ApplyError(f"'{layer.name}' is behind a parametrization: remove that before you analyze the model")


def _check_finite(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if hasattr(parameter, "full_tensor"):
            remedy = "gather a full state dict, load it into a model that was prepared anew, and convert that"
            raise UsageError(f"'{name}' is sharded over processes: {remedy}")
        if not bool(parameter.isfinite().all()):
            raise NumericsError(f"training gave numbers that are not finite in '{name}': train again at a lower rate")
