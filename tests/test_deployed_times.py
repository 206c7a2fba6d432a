"""Times of exports by scheme: all candidates of all layers, and what they predict for mixed plans."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export import Dim

import mpq
from mpq.deployed_times import MIXED, deployed_times
from mpq.formats.scheme import parse_scheme
from mpq.models.inputs.fit_to_model import fit_data
from mpq.models.sources.load import load_model
from tests.activations.networks import images

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)


def test_every_candidate_of_every_layer_has_a_time(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 3, 3), torch.nn.Flatten()).eval()
    torch.export.save(torch.export.export(module, (images(3),), dynamic_shapes=({0: Dim("batch")},)), tmp_path / "m.pt2")
    loaded = load_model(tmp_path / "m.pt2")
    data = fit_data(list(torch.split(images(16), 4)), model=loaded, source="memory")
    chosen: dict[str, Any] = {"candidates": ("int8", "fp16"), "quantizer": "rtn", "method": "measure", "activations": "8"}
    table = mpq.analyze(loaded, data, **chosen)
    steps: list[str] = []
    found = deployed_times(
        loaded,
        table,
        data,
        data.batches[0].select([0]),
        runtime="onnxruntime",
        threads=1,
        seconds=0.01,
        on_progress=lambda done, total, _: steps.append(f"{done}/{total}"),
    )
    assert set(found.layers) == {(layer, parse_scheme(scheme)) for layer in ("0", "2") for scheme in ("int8", "fp16")}
    assert list(found.checks) == ["int8", "fp16", "integer schemes in turn", MIXED]
    assert steps == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    for scheme in ("int8", "fp16"):
        predicted, measured = found.checks[scheme]
        assert predicted == pytest.approx(measured)
        assert predicted == sum(found.layers[layer, parse_scheme(scheme)] for layer in ("0", "2"))
    assert found.checks[MIXED][0] == found.layers["0", parse_scheme("int8")] + found.layers["2", parse_scheme("fp16")]
