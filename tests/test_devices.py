"""From analysis to evaluation on a device that is not there: nothing takes for granted that tensors are on the CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mpq
from mpq.budget import Budget
from mpq.evaluate.plan_measurer import PlanMeasurer
from mpq.evaluate.run import evaluate
from mpq.models.memory.devices import move
from mpq.models.sources.load import from_module
from mpq.search.run import search
from tests.fake_device import fake_device
from tests.models.small import data, mlp


def way(folder: Path, device: torch.device | None, method: str, quantizer: str) -> dict[str, Any]:
    """What each stage gives, for comparison."""
    folder.mkdir()
    module, other, samples = mlp(), mlp(), data(24)
    _moved(module, device)
    loaded = from_module(module)
    table = mpq.analyze(loaded, samples, candidates=("3", "8"), quantizer=quantizer, method=method)
    result = search(table, Budget("4.5bits"), measurer=PlanMeasurer(loaded, samples, table), trials=2)
    path = folder / "a.mpq.safetensors"
    applied = mpq.apply(loaded, result.plan, path, data=samples)
    quantized = mpq.load(path, other)
    _moved(quantized, device)
    found = evaluate(loaded, quantized, samples)
    return {
        "errors": {key: errors.tolist() for key, errors in table.errors.items()},
        "plan": result.plan.layers,
        "decisions": [(each.name, each.kept) for each in applied.decisions],
        "file": path.read_bytes(),
        "figures": [(each.name, each.quantized) for each in found.figures],
    }


def _moved(module: nn.Module, device: torch.device | None) -> None:
    if device is not None:
        move(module, device)


@pytest.mark.parametrize(("method", "quantizer"), [("fisher", "descent"), ("measure", "mse")])
def test_all_stages_give_on_a_device_what_they_give_on_the_cpu(method: str, quantizer: str, tmp_path: Path) -> None:
    expected = way(tmp_path / "cpu", None, method, quantizer)
    mixed: list[str] = []
    with fake_device(mixed) as device:
        found = way(tmp_path / "device", device, method, quantizer)
    assert mixed == []
    errors = expected.pop("errors")  # sums may have another order, as the copies of some tensors are laid out otherwise
    assert found["errors"].keys() == errors.keys()
    for key, values in errors.items():
        assert found["errors"][key] == pytest.approx(values, rel=1e-4, abs=1e-12), key
    assert {name: found[name] == expected[name] for name in expected} == dict.fromkeys(expected, True)
