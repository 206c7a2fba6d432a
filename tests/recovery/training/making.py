"""A small model under two schemes, with data to train it on."""

from typing import Any

from torch import nn

from mpq.data.dataset import Data
from mpq.formats.scheme import parse_scheme
from mpq.models.layers.discover import discover
from mpq.models.running.fake_quantized import Variants
from mpq.models.running.metrics import RelativeMSE
from mpq.models.running.reference import Reference
from mpq.recovery.base import State
from mpq.recovery.training.job import Job
from mpq.recovery.training.settings import TrainSettings
from mpq.tensors.quantizers.registry import quantizer_named
from tests.models.small import data, mlp


def job(*texts: str, samples: int = 160, level: Any = "weights", **others: Any) -> Job:
    module, given = mlp(), data(samples)
    layers = list(discover(module, given.batches[:1]).layers)
    variants = Variants(module, layers, quantizer_named("mse"))
    names = texts or ("int3-g8", "ternary")
    weights = {layer.name: variants.quantized(layer.name, parse_scheme(names[i % len(names)])) for i, layer in enumerate(layers)}
    settings = TrainSettings(level, **({"epochs": 3, "rate": 3.0, "batch_size": 8} | others))
    return Job(module, layers, State(weights), given, RelativeMSE(), settings)


def error(module: nn.Module, given: Data, state: State, found: Job) -> float:
    return float(Reference(module, given, RelativeMSE()).errors(state.values(found.layers)).mean())
