import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mpq.export.run import export
from mpq.formats.scheme import parse_scheme
from mpq.records.plan import plan_for, write_plan
from tests.small import REST, linear

SCHEMES = {"0": "int4-g32", "2": "int3", "4": "int8-asym-g32", "6": "fp16"}
# In a process of its own, since torchao warns while it is imported.
USE = """
import json, sys, torch
from torch import nn
from torchao.core.config import config_from_dict
from torchao.quantization import quantize_
model, x = torch.load("model.pt", weights_only=False)
expected = model(x)
quantize_(model, config_from_dict(json.load(open(sys.argv[1]))), filter_fn=None)
rows = []
for name in ("0", "2", "4", "6"):
    weight = model.get_submodule(name).weight
    codes = getattr(weight, "qdata", None)
    shape, zero = (None, None) if codes is None else (list(weight.scale.shape), int(weight.zero_point.abs().max()))
    rows.append(None if codes is None else [int(codes.min()), int(codes.max()), shape, zero])
error = (model(x) - expected).norm() / expected.norm()
json.dump({"rows": rows, "error": float(error)}, open("found.json", "w"))
"""


def written(folder: Path) -> Path:
    layers = [linear(name, 64, 64) for name in SCHEMES]
    chosen = {name: parse_scheme(text) for name, text in SCHEMES.items()}
    write_plan(
        plan_for(layers, chosen, model={"path": "m", "sha256": "a" * 64, "kind": "export"}, quantizer="rtn", rest=REST),
        folder / "plan.yaml",
    )
    return export(folder / "plan.yaml", "torchao").path


def test_each_layer_has_its_configuration_and_nothing_else_is_touched(tmp_path: Path) -> None:
    config = json.loads(written(tmp_path).read_text())
    assert config["_type"] == "FqnToConfig"
    layers = config["_data"]["fqn_to_config"]
    assert list(layers) == ["0", "2", "4", "_default"]
    assert layers["_default"] is None
    assert layers["0"]["_data"]["granularity"] == {"_type": "PerGroup", "_version": 1, "_data": {"group_size": 32}}
    assert layers["2"]["_data"]["granularity"] == {"_type": "PerAxis", "_version": 1, "_data": {"axis": 0}}
    assert [layers[name]["_data"]["mapping_type"]["_data"] for name in "024"] == ["SYMMETRIC", "SYMMETRIC", "ASYMMETRIC"]


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
def test_torchao_reads_it_and_runs_the_model(tmp_path: Path) -> None:
    path = written(tmp_path)
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(64, 64) if number % 2 == 0 else nn.ReLU() for number in range(7)])
    torch.save((model, torch.randn(8, 64)), tmp_path / "model.pt")
    done = subprocess.run([sys.executable, "-c", USE, path.name], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    first, second, third, last = found["rows"]
    assert last is None
    assert first[:3] == [-8, 7, [64, 2]]
    assert second[:3] == [-4, 3, [64, 1]]
    assert third[2] == [64, 2]
    assert third[3] > 0 == second[3] == first[3]
    assert 0 < found["error"] < 0.3
