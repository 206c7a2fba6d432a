import math
from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from mpq.data.dataset import Data, data_from_batches
from mpq.formats.scheme import parse_scheme
from mpq.models.layers.discover import discover
from mpq.models.running.fake_quantized import Variants
from mpq.models.running.forward import forward
from mpq.models.running.habits import examine
from mpq.models.running.metrics import RelativeMSE
from mpq.models.running.reference import Reference
from mpq.recovery import reconstruction
from mpq.recovery.base import Limits, State, Task
from mpq.recovery.blocks import blocks_of
from mpq.recovery.reconstruction import NO_BLOCKS, Reconstruction
from mpq.tensors.quantizers.registry import quantizer_named
from tests.models.small import bits, data, mlp


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.first, self.second = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, values: Tensor) -> Tensor:
        return cast("Tensor", values + self.second(self.first(self.norm(values)).relu()))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), Residual(), Residual(), nn.Linear(16, 3)).eval()


def samples(count: int, seed: int = 0) -> Data:
    return data_from_batches(list(torch.split(torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)), 16)))


def task_of(module: nn.Module, given: Data, *texts: str, minutes: float = 60, work: float = math.inf) -> tuple[Task, State]:
    layers = discover(module, given.batches[:1]).layers
    variants = Variants(module, layers, quantizer_named("rtn"))
    weights = {layer.name: variants.quantized(layer.name, parse_scheme(texts[i % len(texts)])) for i, layer in enumerate(layers)}
    return Task(variants, given, RelativeMSE(), 0, Limits(work, minutes)), State(weights)


def error(task: Task, state: State) -> float:
    return float(Reference(task.module, samples(128, seed=9), RelativeMSE()).errors(state.values(task.layers)).mean())


def test_the_error_on_new_samples_falls_and_the_model_is_unchanged() -> None:
    module = network()
    before = bits(module)
    task, state = task_of(module, samples(128), "int3", "int4-g8")
    found = Reconstruction().propose(task, state)
    assert bits(module) == before
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert found.details == {"blocks": 4, "kept": 4, "passes": 8, "samples": 112}
    assert (found.about, found.remark) == ("for 4 of 4 blocks", ", 8 passes over 112 samples")
    assert set(found.weights) == {"0", "1.first", "1.second", "2.first", "2.second", "3"}
    assert set(found.tensors) == {
        "0.bias",
        "3.bias",
        *(f"{n}.{name}" for n in (1, 2) for name in ("norm.weight", "norm.bias", "first.bias", "second.bias")),
    }
    assert all(found.weights[name].scheme == weight.scheme for name, weight in state.weights.items())
    assert error(task, state.changed(found.weights, found.tensors)) < 0.6 * error(task, state)
    again = Reconstruction().propose(task, state)
    assert all(torch.equal(again.weights[name].dequantize(), weight.dequantize()) for name, weight in found.weights.items())


def test_blocks_that_gain_nothing_stay() -> None:
    module = network()
    task, state = task_of(module, samples(64), "fp32")
    found = Reconstruction().propose(task, state)
    assert not found.changes
    assert found.about == "no gain on the samples kept aside, 8 passes over 56 samples"


def test_less_work_makes_fewer_passes_and_less_memory_fewer_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    module = network()
    task, state = task_of(module, samples(128), "int3")
    one = 2.0 * sum(layer.weights for layer in task.layers)
    fewer = replace(task, limits=Limits(one * 112 * (3 * 5 + 3 + 4), 60))
    assert Reconstruction().propose(fewer, state).details["passes"] == 5
    monkeypatch.setattr(reconstruction, "LIMIT_BYTES", 40 * 2 * 16 * 4)
    assert Reconstruction().propose(task, state).details["samples"] <= 64
    used, aside = task.calibration.split(0.5, 0)  # as many aside as to train on
    monkeypatch.setattr(reconstruction, "LIMIT_BYTES", 40 * (4 + 16) * 4)
    fitting = reconstruction._fitting(module, blocks_of(module, task.layers, used.batches[0]), used, aside)
    assert [part.samples for part in fitting] == [40, 5]


def test_the_emergency_stop_keeps_the_blocks_that_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    module = network()
    task, state = task_of(module, samples(128), "int3")
    ticks = iter([0.0] * 100 + [1e9] * 10_000)
    monkeypatch.setattr("mpq.recovery.base.time.monotonic", lambda: next(ticks))
    found = Reconstruction().propose(task, state)
    assert found.stopped
    assert found.details["kept"] == 1
    assert set(found.weights) == {"0"}
    assert found.remark.endswith("stopped by the limit of 60 minutes (--tune-minutes)")


def test_models_without_blocks_or_with_state_are_left_alone() -> None:
    task, state = task_of(nn.Linear(4, 2), samples(16), "int3")
    assert Reconstruction().propose(task, state).about == NO_BLOCKS
    single, state = task_of(mlp(), data(1), "int3")
    assert Reconstruction().propose(single, state).about == "1 sample is too few to train on"


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, values: Tensor) -> Tensor:
        self.calls += 1
        return cast("Tensor", self.body(values) * self.calls)


def test_a_model_that_keeps_state_is_not_cut_into_blocks() -> None:
    module, given = Counting().eval(), samples(32)
    assert Reconstruction().hindrance(module, given) is None
    examine(module, given.batches, lambda batch: forward(module, batch))
    assert Reconstruction().hindrance(module, given) == "the model keeps state between calls or draws random numbers"
    assert len(blocks_of(network(), discover(network(), given.batches[:1]).layers, given.batches[0])) == 4
