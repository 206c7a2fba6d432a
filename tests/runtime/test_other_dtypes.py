"""Tensors of dtypes that are not searched go through an artifact bit for bit."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mpq
from tests.models.small import mlp

VALUES = torch.arange(6.0).view(2, 3)
DTYPES = [torch.complex64, torch.complex128, torch.float64, torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e8m0fnu, torch.uint16]


def made(dtype: torch.dtype, values: Tensor) -> nn.Module:
    module = mlp()
    module.register_buffer("table", torch.complex(values, values + 1).to(dtype) if dtype.is_complex else values.to(dtype))
    return module


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("packed", [False, True])
def test_a_buffer_of_any_dtype_is_kept_and_counted(tmp_path: Path, dtype: torch.dtype, packed: bool) -> None:
    model = made(dtype, VALUES)
    table = mpq.analyze(model, [torch.randn(16, 8)], candidates=("8",), quantizer="rtn", method="measure")
    plan = mpq.search(table, "10bits").plan
    done = mpq.apply(model, plan, tmp_path / "a.mpq.safetensors", recovery=False)
    assert done.path.stat().st_size == plan.size.file_bytes
    state = model.state_dict()
    assert done.original_bytes == sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    loaded = mpq.load(done.path, made(dtype, torch.zeros(2, 3)), packed=packed).state_dict()["table"]
    assert loaded.dtype == dtype
    assert torch.equal(loaded.view(torch.uint8), state["table"].view(torch.uint8))
