"""Plans without an analysis: the layers of a model, their schemes in turn."""

import itertools
from pathlib import Path

import torch
from torch import nn

from mpq.models.layers.discover import discover
from mpq.models.layers.unquantized_tensors import inventory, source_of
from mpq.models.running.fake_quantized import Variants
from mpq.models.sources.load import from_module, load_model
from mpq.models.sources.loaded import LoadedModel
from mpq.records.layer import Layer
from mpq.records.plan import Plan, plan_for
from mpq.tensors.quantizers.registry import quantizer_named
from tests.models.layers.test_unquantized_tensors import batch_of
from tests.models.small import MODELS
from tests.small import schemes

SCHEMES = ("int4-g8", "int3-asym", "bf16", "int8", "int2-asym-g4")


def layers_of(model: LoadedModel, kind: str) -> tuple[Layer, ...]:
    return discover(model.module, [batch_of(kind)]).layers


def plan_of(model: LoadedModel, kind: str, texts: tuple[str, ...] = SCHEMES, *, quantizer: str = "rtn") -> Plan:
    layers = layers_of(model, kind)
    chosen = dict(zip((layer.name for layer in layers), itertools.cycle(schemes(*texts)), strict=False))
    source = source_of(model, "model.pt2")
    return plan_for(layers, chosen, model=source, quantizer=quantizer, rest=inventory(model, layers, source=source, quantizer=quantizer))


def in_memory(kind: str) -> LoadedModel:
    return from_module(MODELS[kind][0]())


def exported(kind: str, folder: Path) -> LoadedModel:
    build, inputs = MODELS[kind]
    path = folder / "model.pt2"
    torch.export.save(torch.export.export(build(), (inputs,)), path)
    return load_model(path)


def expected_state(model: LoadedModel, plan: Plan, kind: str) -> dict[str, torch.Tensor]:
    """The state dict with fake-quantized weights in the place of the layers', under all their names."""
    layers = layers_of(model, kind)
    variants = Variants(model.module, layers, quantizer_named(plan.quantizer))
    state = {name: tensor.detach().clone() for name, tensor in model.module.state_dict().items()}
    for layer in layers:
        state |= dict.fromkeys(layer.parameters, variants.weight(layer.name, plan.layers[layer.name]))
    return state


def same(module: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    found = module.state_dict()
    return found.keys() == state.keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor) for name, tensor in state.items()
    )
