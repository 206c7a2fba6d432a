import pytest
import torch

from mpq.models.sources.allowed_operators import is_allowed, refused_names


@pytest.mark.parametrize(
    "target", ["aten.relu.default", "aten.conv2d.padding", "aten.gelu.default", "aten.einsum.default", "prims.sum.default"]
)
def test_operators_that_compute_are_allowed(target: str) -> None:
    assert is_allowed(f"torch.ops.{target}")


@pytest.mark.parametrize(
    "target",
    [
        "aten.from_file.default",
        "aten.from_file.out",
        "aten.save.default",
        "aten.set_.source_Storage",
        "aten.record_stream.default",
        "aten._print.default",
        "aten.resize_.default",
        "aten.nothing.default",
        "quantized.linear.default",
        "mpq.product.default",
        "higher_order.aoti_call_delegate",
        "higher_order.call_torchbind",
        "higher_order.flat_apply",
        "c10d.send.default",
    ],
)
def test_operators_that_reach_further_are_not(target: str) -> None:
    assert not is_allowed(f"torch.ops.{target}")


def test_no_operator_that_takes_the_name_of_a_file_is_allowed() -> None:
    schemas = torch._C._jit_get_all_schemas()
    files = {s.name.partition("::")[2] for s in schemas if s.name.startswith("aten::") and any("file" in a.name for a in s.arguments)}
    assert files >= {"from_file", "save"}
    assert files <= refused_names()
