from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mpq
from mpq.apply.rate_limits import rate_limits
from mpq.errors import UsageError
from mpq.formats.scheme import Scheme
from mpq.records.plan import Plan
from mpq.records.rate_limits import LayerLimit
from mpq.tensors.quantizers.registry import quantizer_named


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 64, bias=False)).eval()


def planned(module: nn.Module, samples: list[Tensor], folder: Path, *, candidates: str = "int4") -> Plan:
    """A plan at the only candidate."""
    folder.mkdir(exist_ok=True)
    table = mpq.analyze(module, samples, candidates=[candidates], quantizer="rtn", output=folder / "a.jsonl")
    return mpq.search(table, "16bits", trials=0).plan


def test_with_independent_inputs_the_limit_is_that_of_the_squared_error(tmp_path: Path) -> None:
    module = linear()
    signs = torch.randn(4, 4, 8, generator=torch.Generator().manual_seed(1)).sign()
    samples = list((8 * signs.diag_embed()) / 8**0.5)  # second moment: the identity
    (found,) = rate_limits(module, planned(module, samples, tmp_path), samples)
    weight = module.get_parameter("0.weight").detach()
    error = (quantizer_named("rtn").quantize(weight, Scheme("int4")).dequantize() - weight).double().square().mean()
    expected = (weight.double().square().mean(1).log2().mean() - error.log2()) / 2
    assert (found.layer, found.weights, found.bits) == ("0", 512, 4 + 16 / 8)
    assert found.least == pytest.approx(float(expected), rel=1e-5)
    assert found.gap == pytest.approx(6 - float(expected), rel=1e-5)


def test_rows_that_are_one_common_row_count_as_one(tmp_path: Path) -> None:
    module, samples = nn.Sequential(nn.Linear(8, 320, bias=False)).eval(), list(torch.randn(4, 16, 8))
    with torch.no_grad():
        module.get_parameter("0.weight")[64:] = module.get_parameter("0.weight")[64].clone()
    (whole,) = rate_limits(module, planned(module, samples, tmp_path), samples)
    alone = nn.Sequential(nn.Linear(8, 65, bias=False)).eval()
    with torch.no_grad():
        alone.get_parameter("0.weight").copy_(module.get_parameter("0.weight")[:65])
    (stored,) = rate_limits(alone, planned(alone, samples, tmp_path / "alone"), samples)
    assert stored.least is not None
    assert whole.least == pytest.approx(stored.least * 65 / 320, rel=1e-6)


def test_too_few_inputs_give_no_limit(tmp_path: Path) -> None:
    module, samples = linear(), [torch.randn(2, 8), torch.randn(2, 8)]
    plan = planned(module, samples, tmp_path)
    assert rate_limits(module, plan, samples) == [LayerLimit("0", 512, 6.0, None, "only 3 input vectors for 8 columns")]


def test_a_layer_without_error_has_no_limit(tmp_path: Path) -> None:
    module, samples = linear(), [torch.randn(16, 8), torch.randn(16, 8)]
    with torch.no_grad():
        module.get_parameter("0.weight").mul_(16).round_()
    plan = planned(module, samples, tmp_path, candidates="fp16")
    assert rate_limits(module, plan, samples) == [LayerLimit("0", 512, 16.0, None, "quantization does not change it")]


def test_a_plan_without_data_is_refused(tmp_path: Path) -> None:
    module, samples = linear(), [torch.randn(16, 8), torch.randn(16, 8)]
    plan = planned(module, samples, tmp_path)
    with pytest.raises(UsageError, match="without calibration data"):
        rate_limits(module, replace(plan, data={}), samples)
