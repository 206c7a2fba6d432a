"""Layers are quantized in the order of the model, each for what the quantized ones before it give."""

import importlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mpq.calibration.input_moments import statistics_for
from mpq.data.dataset import Data
from mpq.formats.scheme import parse_scheme
from mpq.models.layers.discover import discover
from mpq.models.running.fake_quantized import Variants, as_parameter
from mpq.models.running.swap import swapped
from mpq.recovery.sequential import in_sequence
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.registry import quantizer_named
from tests.models.small import MODELS, bits, data, inputs, mlp

sequence = importlib.import_module("mpq.recovery.sequential")


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(8, 8)
        self.value, self.key, self.query = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.softmax(self.query(x) @ self.key(x).mT, -1)
        result: Tensor = self.output(scores @ self.value(x))
        return result


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.first(torch.tanh(self.second(torch.tanh(self.first(x)))))
        return result


class Chain(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(8, 24, bias=False), nn.Linear(24, 8, bias=False))


def found_by(
    module: nn.Module, samples: Data, scheme: str = "int3", quantizer: str = "descent", limit_bytes: int = 1 << 30
) -> tuple[dict[str, QuantizedWeight], dict[str, QuantizedWeight], Variants]:
    layers, chosen = discover(module, samples.batches).layers, quantizer_named(quantizer)
    variants = Variants(module, layers, chosen, statistics=statistics_for(chosen, module, layers, samples))
    plain = {layer.name: variants.quantized(layer.name, parse_scheme(scheme)) for layer in layers}
    return plain, in_sequence(variants, plain, samples, limit_bytes=limit_bytes).weights, variants


def outputs(variants: Variants, weights: dict[str, QuantizedWeight], x: Tensor) -> Tensor:
    with swapped(variants.module, {layer.parameters[0]: as_parameter(weights[name], layer) for name, layer in variants.layers.items()}):
        result: Tensor = variants.module(x)
        return result.detach()


def made(kind: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


@pytest.mark.parametrize(
    ("kind", "shape", "quantizer", "share"),
    [
        (mlp, (8,), "rtn", 0.95),
        (mlp, (8,), "descent", 0.95),
        (Attention, (3, 8), "descent", 0.95),
        (Chain, (8,), "descent", 0.95),
        (MODELS["conv"][0], (2, 6, 6), "descent", 1.0),  # little is left to gain: each output channel has a scale
        (MODELS["experts"][0], (6,), "rtn", 0.95),
        (MODELS["experts"][0], (6,), "descent", 0.95),
    ],
)
def test_the_model_comes_nearer_to_what_it_was(kind: Callable[[], nn.Module], shape: tuple[int, ...], quantizer: str, share: float) -> None:
    module = made(kind)
    before = bits(module)
    plain, found, variants = found_by(module, data(256, *shape), quantizer=quantizer)
    assert bits(module) == before
    assert found
    assert all(weight.scheme == plain[name].scheme for name, weight in found.items())
    x = inputs(256, *shape, seed=7)
    exact = module(x).detach()
    error, other = (float((outputs(variants, weights, x) - exact).square().mean()) for weights in (plain, {**plain, **found}))
    assert other < share * error


def test_a_matrix_is_the_least_squares_answer_to_the_inputs_it_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "_DAMPING", 1e-12)
    samples, module = data(64), made(Chain)
    with torch.no_grad():
        module.get_parameter("0.weight")[8:] += 0.1 * inputs(16, 8)
    wanted: list[Tensor] = []
    original = sequence._fitted

    def fitted(*given: Tensor) -> Tensor:
        wanted.append(original(*given))
        return wanted[-1]

    monkeypatch.setattr(sequence, "_fitted", fitted)
    plain, _, variants = found_by(module, samples, "int8")
    x = torch.cat([batch.args[0] for batch in samples.batches])
    met = x.double() @ plain["0"].dequantize().double().t()
    exact = x.double() @ variants.matrix("0").double().t() @ variants.matrix("1").double().t()
    assert len(wanted) == 1  # the first stage meets the same inputs, and keeps what it had
    best = torch.linalg.lstsq(met, exact).solution  # of less than full rank: the outputs tell, not the matrix
    assert torch.allclose(met @ wanted[0].double().t(), met @ best, atol=1e-4)


def test_memory_for_vectors_can_be_limited() -> None:
    module = made(Attention)
    whole, parts = (found_by(module, data(64, 3, 8), limit_bytes=limit)[1] for limit in (1 << 30, 1))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name].codes, parts[name].codes) for name in whole)


def test_an_error_of_the_model_itself_is_not_hidden() -> None:
    module, samples = mlp(), data()
    layers = discover(module, samples.batches).layers
    variants = Variants(module, layers, quantizer_named("rtn"))
    plain = {layer.name: variants.quantized(layer.name, parse_scheme("int3")) for layer in layers}
    calls = 0

    def fail(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 5:
            raise RuntimeError("out of order")

    module.get_submodule("1").register_forward_hook(fail)
    with pytest.raises(Exception, match="out of order"):
        in_sequence(variants, plain, samples)
