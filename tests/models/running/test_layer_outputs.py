import pytest
import torch
from torch import nn

from mpq.models.running.layer_outputs import LayerOutputs, magnitude


def test_the_output_of_each_layer_is_measured() -> None:
    torch.manual_seed(0)
    first_layer, second = nn.Linear(4, 3), nn.Linear(3, 2)
    model = nn.Sequential(first_layer, nn.ReLU(), second).eval()
    x = torch.randn(2, 5, 4)
    watch = LayerOutputs({"a": first_layer.weight, "b": second.weight})
    with torch.no_grad(), watch:
        result = model(x)
    with torch.no_grad():
        first = first_layer(x)
    assert watch.found["a"] == pytest.approx(magnitude(first))
    assert watch.found["b"] == pytest.approx(magnitude(result))


def test_a_tied_weight_counts_where_it_is_used_first() -> None:
    table = nn.Embedding(6, 4)
    watch = LayerOutputs({"table": table.weight})
    with torch.no_grad(), watch:
        hidden = table(torch.tensor([[1, 2]]))
        hidden @ table.weight.T
    assert watch.found["table"] == pytest.approx(magnitude(hidden))


def test_a_converted_weight_is_still_the_layer() -> None:
    weight, x = torch.ones(2, 2), torch.ones(1, 2, dtype=torch.float64)
    watch = LayerOutputs({"layer": weight})
    with watch:
        x @ weight.double()
    assert watch.found == {"layer": (2.0, 2.0)}


def test_values_that_are_not_finite_do_not_count() -> None:
    assert magnitude(torch.tensor([3.0, -4.0, torch.inf, torch.nan])) == pytest.approx((12.5**0.5, 4.0))
    assert magnitude(torch.tensor([torch.nan])) == (0.0, 0.0)
