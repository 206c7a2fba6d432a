"""The order in which a model uses its layers, and what each of them meets."""

import pytest
import torch
from torch import Tensor, nn

from mpq.data.dataset import Data, data_from_batches
from mpq.models.layers.discover import discover
from mpq.recovery.order import recorded, stages
from tests.models.small import MODELS, data, experts, inputs, mlp, tied
from tests.recovery.test_sequential import Attention, Twice, made


@pytest.mark.parametrize(
    ("module", "samples", "order"),
    [
        (mlp(), data(), [["0"], ["3"], ["5"]]),
        (made(Attention), data(24, 3, 8), [["value", "key", "query"], ["output"]]),
        (made(Twice), data(), [["second"]]),
        (tied(), data_from_batches([MODELS["tied"][1]]), [["body"]]),
    ],
    ids=["mlp", "attention", "twice", "tied"],
)
def test_layers_come_in_the_order_of_their_inputs(module: nn.Module, samples: Data, order: list[list[str]]) -> None:
    found = stages(module, discover(module, samples.batches).layers, samples)
    assert [sorted(use.name for use in stage) for stage in found] == [sorted(stage) for stage in order]


def test_values_are_counted_over_all_samples_and_shared_inputs_take_memory_once() -> None:
    module, samples = made(Attention), data(24, 3, 8)
    first, last = stages(module, discover(module, samples.batches).layers, samples)
    assert [(use.groups, use.values) for use in (*first, *last)] == [(1, 24 * 3 * 8)] * 4
    assert sorted(use.kept_bytes for use in first) == [0, 0, 4 * 24 * 3 * 8]
    assert last[0].kept_bytes == 4 * 24 * 3 * 8


def test_experts_are_groups_of_rows() -> None:
    module, samples = experts(), data_from_batches([inputs(8, 6)])
    found = {use.name: use.groups for stage in stages(module, discover(module, samples.batches).layers, samples) for use in stage}
    assert found == {"gate": 1, "up": 3, "down": 3}


def test_layers_meet_what_the_unquantized_model_gives_them() -> None:
    module, samples, begun = mlp(), data(24), list[int]()
    layers = discover(module, samples.batches).layers
    found = recorded(module, layers, samples, lambda: begun.append(1))
    assert len(begun) == len(found) == 3
    for batch, calls in zip(samples.batches, found, strict=True):
        x: Tensor = batch.args[0]
        with torch.no_grad():
            expected = {"0": x, "3": module[:3](x), "5": module[:5](x)}  # type: ignore[index]
        assert {name: len(one) for name, one in calls.items()} == {"0": 1, "3": 1, "5": 1}
        for name, (vectors,) in calls.items():
            assert torch.allclose(vectors.reshape(-1, vectors.shape[-1]), expected[name])


def test_a_tensor_that_several_layers_meet_is_kept_once() -> None:
    module, samples = made(Attention), data(8, 3, 8)
    (calls,) = recorded(module, discover(module, samples.batches).layers, samples, lambda: None)
    (query,), (key,), (value,), (output,) = (calls[name] for name in ("query", "key", "value", "output"))
    assert query.data_ptr() == key.data_ptr() == value.data_ptr() != output.data_ptr()


def test_what_is_overwritten_in_place_afterwards_is_kept_as_it_was() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            x = x.clone()
            first = self.a(x)
            x.zero_()
            result: Tensor = self.b(x) + first
            return result

    module, samples = made(InPlace), data(8)
    (calls,) = recorded(module, discover(module, samples.batches).layers, samples, lambda: None)
    assert torch.equal(calls["a"][0].reshape(8, 8), samples.batches[0].args[0])
    assert not calls["b"][0].any()
