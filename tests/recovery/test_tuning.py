import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mpq.data.dataset import Data, data_from_batches
from mpq.errors import DataError
from mpq.formats.scheme import parse_scheme
from mpq.models.layers.discover import discover
from mpq.models.running.fake_quantized import Variants, as_parameter
from mpq.models.running.metrics import RelativeMSE
from mpq.models.running.reference import Reference
from mpq.records.layer import Layer
from mpq.recovery.base import Limits, State, Task
from mpq.recovery.trainable import SCALE_RATE, vectors_of
from mpq.recovery.tuning import GENTLE, OUT_OF_TIME, PASSES, Tuned, tune
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.registry import quantizer_named
from tests.models.small import bits, data, mlp, tied
from tests.recovery.test_bias_correction import convolutional, images

Quantized = dict[str, QuantizedWeight]


def quantized(module: nn.Module, samples: Data, *texts: str) -> tuple[tuple[Layer, ...], Quantized]:
    layers = discover(module, samples.batches[:1]).layers
    variants = Variants(module, layers, quantizer_named("mse"))
    return layers, {layer.name: variants.quantized(layer.name, parse_scheme(texts[i % len(texts)])) for i, layer in enumerate(layers)}


def tuned(
    module: nn.Module,
    samples: Data,
    layers: tuple[Layer, ...],
    weights: Quantized,
    *,
    seconds: float = 600,
    seed: int = 0,
    kept: tuple[str, ...] = (),
) -> Tuned:
    limits = Limits(math.inf, seconds / 60)
    task = Task(Variants(module, layers, quantizer_named("mse")), samples, RelativeMSE(), seed, limits, kept=kept)
    return tune(task, State(weights))


def error(module: nn.Module, samples: Data, layers: tuple[Layer, ...], weights: Quantized, vectors: dict[str, Tensor]) -> float:
    parameters = {layer.parameters[0]: as_parameter(weights[layer.name], layer) for layer in layers if layer.name in weights}
    return float(Reference(module, samples, RelativeMSE()).errors({**parameters, **vectors}).mean())


def exported(module: nn.Module, example: Tensor) -> nn.Module:
    batch = torch.export.Dim("batch", min=1, max=512)
    return torch.export.export(module, (example,), dynamic_shapes=({0: batch},)).module(check_guards=False)


KINDS: dict[str, Callable[[nn.Module, Tensor], nn.Module]] = {
    "eager": lambda module, _: module,
    "exported": exported,
    "scripted": lambda module, example: torch.jit.trace(module, example),  # type: ignore[no-untyped-call]
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_the_error_on_new_samples_falls_and_the_model_is_unchanged(kind: str) -> None:
    module, samples = KINDS[kind](convolutional(), images(8)), data_from_batches(list(torch.split(images(96), 16)))
    before = bits(module)
    layers, weights = quantized(module, samples, "int2", "int3-g8")
    found = tuned(module, samples, layers, weights)
    assert bits(module) == before
    assert set(found.weights) == {layer.name for layer in layers}
    assert set(found.vectors) == {"1.weight", "1.bias", "4.bias"}
    assert found.passes == PASSES
    assert not found.ended
    fresh = data_from_batches([images(64, seed=9)])
    assert error(module, fresh, layers, dict(found.weights), dict(found.vectors)) < 0.8 * error(module, fresh, layers, weights, {})


def test_after_block_reconstruction_one_gentle_pass_is_enough() -> None:
    module, samples = mlp(), data(48)
    layers, weights = quantized(module, samples, "int3-g8")
    first, after = (tuned(module, samples, layers, weights, kept=kept) for kept in (("sequential",), ("sequential", "reconstruction")))
    assert (first.of, after.of, after.passes, after.ended) == (PASSES, 1, 1, "")

    def moved(found: Tuned) -> float:
        scales = [(weights[name].scales, weight.scales) for name, weight in found.weights.items()]
        return max(float((new.float() / old.float() - 1).abs().max()) for old, new in scales if old is not None and new is not None)

    steps = 42 // 7 * 1.0  # 42 samples in batches of 7 at most
    assert 0 < moved(after) < GENTLE * SCALE_RATE * steps < moved(first)


def test_the_same_seed_gives_the_same_values() -> None:
    module, samples = mlp(), data(48)
    layers, weights = quantized(module, samples, "int2-asym", "nf4-g8", "fp16")
    first, again = (tuned(module, samples, layers, weights) for _ in range(2))
    assert first.weights.keys() == {layers[0].name, layers[1].name}  # a 16-bit layer stays as it is
    for name, weight in first.weights.items():
        assert torch.equal(weight.dequantize(), again.weights[name].dequantize())
    for name, vector in first.vectors.items():
        assert torch.equal(vector, again.vectors[name])


def test_a_tied_table_gets_the_gradients_of_all_its_uses() -> None:
    module = tied()
    tokens = data_from_batches(list(torch.split(torch.randint(0, 11, (64, 5), generator=torch.Generator().manual_seed(0)), 8)))
    layers, weights = quantized(module, tokens, "int2")
    found = tuned(module, tokens, layers, weights)
    assert error(module, tokens, layers, dict(found.weights), dict(found.vectors)) < error(module, tokens, layers, weights, {})


def test_time_that_runs_short_ends_the_passes() -> None:
    module, samples = mlp(), data(48)
    layers, weights = quantized(module, samples, "int2")
    found = tuned(module, samples, layers, weights, seconds=1e-6)
    assert found.ended == OUT_OF_TIME
    assert found.passes == 0
    assert not found.weights


def test_passes_beyond_the_emergency_stop_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    module, samples, ticks = mlp(), data(48), itertools.count(0.0, 0.1)
    monkeypatch.setattr("mpq.recovery.base.time.monotonic", lambda: next(ticks))
    layers, weights = quantized(module, samples, "int2")
    found = tuned(module, samples, layers, weights, seconds=3)
    assert found.ended == OUT_OF_TIME
    assert 1 < found.passes < PASSES == found.of
    assert found.weights


def test_values_keep_their_dtype() -> None:
    module = mlp().bfloat16()
    samples = data_from_batches([batch.args[0].bfloat16() for batch in data(48).batches])
    layers, weights = quantized(module, samples, "int2")
    found = tuned(module, samples, layers, weights)
    assert {vector.dtype for vector in found.vectors.values()} == {torch.bfloat16}


def test_one_sample_is_not_enough() -> None:
    module, samples = mlp(), data(1)
    layers, weights = quantized(module, samples, "int2")
    with pytest.raises(DataError, match="cannot be split"):
        tuned(module, samples, layers, weights)


def test_weights_that_no_scheme_may_change_are_left_alone() -> None:
    module = mlp()
    assert set(vectors_of(module, [])) == {"0.bias", "2.weight", "2.bias", "3.bias", "5.bias"}
