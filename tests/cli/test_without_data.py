"""From a model to an artifact without any data."""

from pathlib import Path

import pytest
import torch

import mpq
from mpq.records.sensitivity import read_sensitivity
from tests.cli.typed import done, refused
from tests.models.small import tied, up_and_down


@pytest.mark.parametrize("name", ["tied", "up_and_down"])
def test_a_state_dict_without_data_becomes_an_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    module = {"tied": tied, "up_and_down": up_and_down}[name]()
    torch.save(module.state_dict(), "weights.pt")
    factory = f"--builder tests.models.small:{name}"
    line = f"analyze weights.pt {factory} --candidates 4,8,16"
    assert "no calibration data" in refused(line, 3)
    ran = done(f"{line} --method weight")
    assert "data: none" in ran.err
    assert "every weight of two or more dimensions counts as used" in ran.err
    assert ran.err.endswith(f"next: mpq search --budget 4.5bits --trials 0 {factory}\n")
    assert ran.out.splitlines()[0].split() == ["most", "sensitive", "scheme", "bpw", "weight_error"]
    assert read_sensitivity(tmp_path / "weights.sensitivity.jsonl").metric == "weight_error"
    assert "was made without data, so plans cannot be measured: add --trials 0" in refused(f"search {factory} --budget 12bits", 2)
    done("search --budget 12bits --trials 0")
    done("show weights.sensitivity.jsonl")
    done("report plan.yaml")
    done(f"apply plan.yaml {factory}")
    loaded = mpq.load(tmp_path / "weights.mpq.safetensors", module)
    assert all(torch.isfinite(tensor).all() for tensor in loaded.state_dict().values())
