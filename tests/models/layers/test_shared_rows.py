"""Layers with rows that are one common row are marked."""

import torch
from torch import nn

from mpq.models.layers.shared_rows import with_shared_rows
from mpq.records.layer import Layer


def test_a_table_with_a_common_row_is_marked_and_named() -> None:
    table, conv = nn.Embedding(300, 16), nn.Conv2d(4, 300, 2)
    module = nn.ModuleDict({"table": table, "line": nn.Linear(16, 300), "conv": conv})
    with torch.no_grad():
        table.weight[100:] = torch.arange(16.0)
        conv.weight.fill_(1.0)
    layers = [
        Layer("table", ("table.weight",), (300, 16), (0,), "float32"),
        Layer("line", ("line.weight",), (300, 16), (0,), "float32"),
        Layer("turned", ("table.weight",), (300, 16), (1,), "float32"),
        Layer("conv", ("conv.weight",), (300, 4, 2, 2), (0,), "float32"),
    ]
    found, notes = with_shared_rows(module, layers)
    assert [layer.alike for layer in found] == [200, 0, 0, 0]
    assert found[1:] == layers[1:]
    assert notes == {"table": "200 of 300 rows of table are one common row: stored once"}
    with torch.no_grad():
        table.weight[100, 0] += 0.1
    assert with_shared_rows(module, layers[:1])[1] == {
        "table": "200 of 300 rows of table are one common row (within 0.0028% on average): stored once"
    }
