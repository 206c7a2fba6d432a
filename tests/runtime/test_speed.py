"""Speed of two models."""

import time
from typing import Any

import pytest
from torch import Tensor, nn

from mpq.data.dataset import Batch
from mpq.runtime.speed import Pair, fastest, latencies, tokens_per_second
from tests.models.small import inputs, mlp


class Slow(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.01)
        return x


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(2, 8)


def test_the_slower_model_has_the_longer_time() -> None:
    found, refused = latencies(Slow(), mlp(), Batch((inputs(1, 8),)), [1, 4], seconds=0.1)
    assert [pair.label for pair in found] == ["batch 1", "batch 4"]
    assert all(pair.reference >= 0.01 and pair.gain > 1 for pair in found)
    assert refused == []


def test_batch_sizes_that_a_model_does_not_take_are_told() -> None:
    found, refused = latencies(Fixed(), Fixed(), Batch((inputs(1, 8),)), [1, 2], seconds=0.1)
    assert ([pair.label for pair in found], refused) == (["batch 2"], [1])


def test_a_gain_above_one_is_better_whichever_way_the_figure_goes() -> None:
    assert Pair("seconds", 2.0, 1.0).gain == 2.0
    assert Pair("tokens", 1.0, 2.0, higher_is_better=True).gain == 2.0


def test_calls_take_turns() -> None:
    order: list[str] = []
    fastest([lambda: order.append("a"), lambda: order.append("b")], seconds=0)
    assert order == ["a", "b"] * 5


def test_decoding_needs_a_model_with_a_cache() -> None:
    assert tokens_per_second(mlp(), mlp(), vocabulary=10) is None


def test_decoding_feeds_each_token_back() -> None:
    transformers = pytest.importorskip("transformers")
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, max_position_embeddings=64)).eval()
    lengths: list[int] = []
    model.register_forward_pre_hook(lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True)
    found = tokens_per_second(model, model, vocabulary=40, tokens=5, rounds=1)
    assert found is not None
    assert found.reference > 0
    assert lengths == [8, *[8, 1, 1, 1, 1, 1] * 2]  # the first call asks whether it decodes
