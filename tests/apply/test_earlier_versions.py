"""Artifacts and plans of earlier versions, made with the code that wrote the steps of recovery as a number.

`tests/fixtures/corrected-N.*` are of `convolutional()` at 2 bits, after rtn (3: bias correction and tuning) and mse (5: sequential
re-quantization and bias correction), with the plans that they were made from.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import mpq
from mpq.data.dataset import data_from_batches
from mpq.records.artifact import read_artifact_header
from tests.cli.typed import done
from tests.recovery.test_bias_correction import convolutional, images

FIXTURES = Path(__file__).parents[1] / "fixtures"
CASES = {"corrected-3": ("bias_correction", "tuning"), "corrected-5": ("sequential", "bias_correction")}


@pytest.mark.parametrize("name", CASES)
def test_an_artifact_of_an_earlier_version_is_read_and_runs(name: str) -> None:
    path = FIXTURES / f"{name}.mpq.safetensors"
    assert b'corrected\\":' in path.read_bytes()
    assert read_artifact_header(path).recovery == CASES[name]
    assert done(f"show {path}").out.splitlines()[4] == f"recovery: {', '.join(CASES[name]).replace('_', ' ')}"
    loaded = mpq.load(path, convolutional())
    found = mpq.evaluate(convolutional(), loaded, [images(64, seed=7)])
    assert 0 < found["relative_mse"].quantized < 0.5


@pytest.mark.parametrize("name", CASES)
def test_a_plan_of_an_earlier_version_is_applied_and_gives_the_same_codes(tmp_path: Path, name: str) -> None:
    samples = data_from_batches(list(torch.split(images(256), 16)))
    path = FIXTURES / f"{name}.mpq.safetensors"
    made = mpq.apply(convolutional(), FIXTURES / f"{name}.yaml", tmp_path / "a.mpq.safetensors", data=samples)
    assert made.file_bytes == path.stat().st_size == mpq.read_plan(FIXTURES / f"{name}.yaml").size.file_bytes
    assert read_artifact_header(made.path).recovery == CASES[name]
    before, after = load_file(path), load_file(made.path)
    assert {key: (tensor.dtype, tensor.shape) for key, tensor in after.items()} == {
        key: (tensor.dtype, tensor.shape) for key, tensor in before.items()
    }
    codes = [(after[key] == tensor).double().mean() for key, tensor in before.items() if key.endswith(".codes")]
    assert min(codes) > 0.98  # gradients are not bit-identical on all machines
