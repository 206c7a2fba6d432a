"""The kernels as operators: the same results, shapes known without computing, and a graph that holds one call for each."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from mpq.tensors.kernels import choose, traced
from mpq.tensors.kernels.codes import Codes
from tests.tensors.kernels.making import as_stored, inputs, some_rows, weight

SCHEMES = ["int4-asym-g32", "int5-g16", "nf4-g32", "bf16"]


def codes_of(scheme: str) -> Codes:
    return choose.best_layout(as_stored(weight(scheme, (64, 96))), 2, torch.float32)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_operators_give_what_the_kernels_give(scheme: str) -> None:
    codes, x = codes_of(scheme), inputs(3, 96)
    assert torch.equal(traced.product(x, codes), choose.product(x, codes))
    assert torch.equal(traced.rows_of(codes, some_rows(64)), choose.rows_of(codes, some_rows(64)))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_shapes_and_dtypes_are_known_without_computing(scheme: str) -> None:
    codes = codes_of(scheme)
    with FakeTensorMode() as mode:
        scales, zero_points = (None if part is None else mode.from_tensor(part) for part in (codes.scales, codes.zero_points))
        fake = codes._replace(codes=mode.from_tensor(codes.codes), scales=scales, zero_points=zero_points)
        for dtype in (torch.float32, torch.bfloat16):
            found = traced.product(torch.empty(2, 3, 96, dtype=dtype), fake)
            assert (found.shape, found.dtype) == ((6, 64), dtype)
        rows = traced.rows_of(fake, torch.zeros(5, dtype=torch.int64))
        assert (rows.shape, rows.dtype) == ((5, 96), torch.float32)


def test_a_compiled_function_calls_each_kernel_once() -> None:
    codes = codes_of("int4-asym-g32")
    seen: list[str] = []

    def note(module: torch.fx.GraphModule, _: Any) -> Any:
        seen.extend(str(node.target) for node in module.graph.nodes if node.op == "call_function")
        return module.forward

    def run(x: Tensor, wanted: Tensor) -> Tensor:
        return traced.product(x, codes).sum() + traced.rows_of(codes, wanted).sum()

    x = inputs(3, 96)
    compiled = torch.compile(run, backend=note, fullgraph=True)
    torch.testing.assert_close(compiled(x, some_rows(64)), run(x, some_rows(64)))
    assert sum("mpq.product" in target or "mpq::product" in target for target in seen) == 1
    assert sum("mpq.rows_of" in target or "mpq::rows_of" in target for target in seen) == 1
