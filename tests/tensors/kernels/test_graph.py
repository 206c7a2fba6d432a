"""Dequantization in few operations: the same bits as anywhere else, for every format, and what an exported graph holds."""

import pytest
import torch
from torch import Tensor, nn

from mpq.formats.scheme import parse_scheme
from mpq.tensors.kernels import graph
from mpq.tensors.kernels.codes import Codes
from tests.tensors.kernels.making import INTEGERS, OTHERS, as_stored, weight


def prepared(scheme: str, shape: tuple[int, int]) -> Codes:
    """Stored codes whose parts went through `padded`, as the docstring wants them."""
    codes = as_stored(weight(scheme, shape))
    if codes.scales is None:
        return codes
    zeros = codes.zero_points
    return codes._replace(
        codes=graph.padded(codes.codes, codes.scheme), zero_points=None if zeros is None else graph.padded(zeros, codes.scheme)
    )


@pytest.mark.parametrize("scheme", INTEGERS + OTHERS + ("int7-asym-g16", "int6-g8"))
@pytest.mark.parametrize("shape", [(1, 1), (5, 37), (3, 64)])
def test_the_weight_is_the_same_to_the_bit(scheme: str, shape: tuple[int, int]) -> None:
    assert torch.equal(graph.dequantize(prepared(scheme, shape)), weight(scheme, shape).dequantize())


@pytest.mark.parametrize(
    ("scheme", "count", "expected"),
    [("int3", 4, 6), ("int3", 6, 6), ("int3", 0, 0), ("int5", 1, 5), ("int4", 5, 8), ("int8", 5, 5), ("ternary", 7, 7), ("int2", 3, 4)],
)
def test_codes_are_filled_up_to_whole_runs_with_zeros(scheme: str, count: int, expected: int) -> None:
    packed = torch.arange(1, count + 1, dtype=torch.uint8)
    found = graph.padded(packed, parse_scheme(scheme))
    assert found.tolist() == [*packed.tolist(), *[0] * (expected - count)]


class Dequantizing(nn.Module):
    def __init__(self, codes: Codes) -> None:
        super().__init__()
        self.codes = codes

    def forward(self, packed: Tensor, scales: Tensor) -> Tensor:
        return graph.dequantize(self.codes._replace(codes=packed, scales=scales))


@pytest.mark.parametrize("scheme", ["int3-g16", "int7-g16"])
def test_an_exported_graph_is_as_short_for_every_number_of_bits(scheme: str) -> None:
    codes = prepared(scheme, (4, 32))
    assert codes.scales is not None
    exported = torch.export.export(Dequantizing(codes), (codes.codes, codes.scales), strict=False)
    operators = [node.target for node in exported.graph.nodes if node.op == "call_function"]
    assert len(operators) <= 25
    assert all("mpq" not in str(operator) for operator in operators)
    assert torch.equal(exported.module()(codes.codes, codes.scales), weight(scheme, (4, 32)).dequantize())
