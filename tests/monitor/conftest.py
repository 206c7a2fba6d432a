"""A small model, its data, and the baseline of both."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.formats.scheme import parse_scheme
from mpq.monitor.baseline import baseline_of
from mpq.records.baseline import Baseline
from mpq.tensors.kernels.stored import stored_codes
from mpq.tensors.packed import PackedTensor
from mpq.tensors.quantizers.registry import quantizer_named


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5)).eval()


def packed_model() -> nn.Sequential:
    """The same model with its weights packed in 7 bits, in a format that no CPU has a faster kernel for."""
    module = model()
    for layer in module:
        if isinstance(layer, nn.Linear):
            weight = quantizer_named("rtn").quantize(layer.weight.detach(), parse_scheme("nl7-g8"))
            codes = stored_codes(weight.pack(), weight.scheme, weight.matrix)
            layer.weight = nn.Parameter(PackedTensor(codes, layer.weight.shape, (0,), torch.float32), requires_grad=False)
    return module


def run_with_fallback(module: nn.Module, inputs: list[Tensor]) -> None:
    """Run the model; the first call is under autocast, where packed weights are dequantized."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        run(module, inputs[:1])
    run(module, inputs[1:])


def data(seed: int, *, calls: int = 60, change: Callable[[Tensor], Tensor] = lambda x: x) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [change(torch.randn(8, 16, generator=generator)) for _ in range(calls)]


@pytest.fixture
def baseline() -> Baseline:
    return baseline_of(model(), [Batch((x,)) for x in data(0)], layers=["0", "2"])


def run(module: nn.Module, inputs: list[Tensor]) -> None:
    with torch.no_grad():
        for x in inputs:
            module(x)
