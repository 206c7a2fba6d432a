import torch
from torch import nn

from mpq.data.dataset import data_from_batches
from mpq.models.layers.discover import discover
from mpq.records.layer import Layer
from mpq.recovery.cost import LEAST_SAMPLES, SetCost, affordable, forward_operations, set_cost
from tests.models.small import data, mlp


def layer(rows: int, columns: int) -> Layer:
    return Layer("a", ("a.weight",), (rows, columns), (0,), "float32")


def test_a_forward_pass_is_counted_for_one_sample() -> None:
    module = mlp()
    expected = 2 * (8 * 16 + 16 * 12 + 12 * 4)
    assert [forward_operations(module, [], data(24, batch_size=size)) for size in (1, 8, 24)] == 3 * [expected]
    convolution = nn.Conv2d(3, 5, 3, padding=1).eval()
    assert forward_operations(convolution, [], data_from_batches([torch.randn(4, 3, 6, 6)])) == 2 * 36 * 3 * 9 * 5


def test_recurrent_layers_and_fused_attention_are_counted_too() -> None:
    lstm, batch = nn.LSTM(8, 6, batch_first=True).eval(), data_from_batches([torch.randn(4, 5, 8)])
    assert forward_operations(lstm, [], batch) == 2 * 5 * 4 * 6 * (8 + 6)
    attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    assert forward_operations(attention, [], batch) >= 2 * 5 * (4 * 8 * 8 + 2 * 8 * 16)


def test_weights_that_torch_does_not_count_cost_two_operations_each() -> None:
    table = nn.Embedding(100, 8).eval()
    tokens = data_from_batches([torch.randint(0, 100, (4, 5))])
    assert forward_operations(table, discover(table, tokens.batches).layers, tokens) == 2 * 800


def test_the_cost_of_a_set_grows_with_the_square_and_the_cube_of_its_columns() -> None:
    one, twice = (set_cost([layer(1, columns)], [1], [0], 0) for columns in (1000, 2000))
    assert (one.columns, one.memory, twice.memory) == (1000, 64 * 1000**2, 4 * one.memory)
    assert 7.9 < twice.fixed / one.fixed < 8
    parts = set_cost([layer(12, 1000)], [3], [5000], 77)
    assert parts.memory == 3 * one.memory + 77
    assert parts.moving == 4 * 5000 * 1000


def test_everything_is_done_where_the_work_suffices() -> None:
    found = affordable([SetCost(8, 100, 10.0, 100.0)] * 2, 50.0, 64, 1e9)
    assert (found.samples, found.left) == (64, {})


def test_samples_are_left_out_first() -> None:
    costs = [SetCost(8, 100, 0.0, 100.0)] * 2  # with two passes of 50 over all samples: 300
    assert affordable(costs, 50.0, 64, 300.0).samples == 64
    assert affordable(costs, 50.0, 64, 150.0).samples == 32
    assert affordable(costs, 50.0, 64, 300.0 * LEAST_SAMPLES / 64).samples == LEAST_SAMPLES


def test_nothing_is_done_where_the_least_number_of_samples_would_be_too_much() -> None:
    found = affordable([SetCost(8, 100, 0.0, 100.0)] * 2, 50.0, 64, 37.0)
    expected = "all sets of layers together would take 38 operations, and 37 are allowed (--tune-work)"
    assert (found.samples, found.left) == (0, {0: expected, 1: expected})


def test_sets_that_are_too_large_are_left_and_cost_nothing() -> None:
    costs = [SetCost(9000, 5 << 30, 1.0, 1e9), SetCost(8, 100, 1.0, 10.0), SetCost(4000, 100, 300.0, 1e9)]
    found = affordable(costs, 1.0, 64, 1000.0)
    assert found.samples == 64
    assert found.left == {
        0: "rows of 9,000 weights would take 5.4 GB of memory, and 2.1 GB are allowed",
        2: "rows of 4,000 weights would take 3e+02 operations, and 1.2e+02 are allowed for one set of layers (an eighth of --tune-work)",
    }
