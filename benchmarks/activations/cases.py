"""The models of the benchmark."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from benchmarks.quantizer_cases import Case, Sentences, case, right
from mpq.demo import demo_files
from mpq.models.inputs.fit_to_model import fit_data
from mpq.models.running.metrics import KLDivergence
from mpq.models.sources.load import load_model

DYNAMIC = ("minilm", "stories9m")
ENCODER, FACTORY = "MPQ_BENCHMARK_ENCODER", "benchmarks.activations.cases:encoder"


def digits() -> Case:
    """The demo's CNN with depthwise layers."""
    files = demo_files("digits")
    model = load_model(files.model)
    calibration = fit_data([files.calibration], model=model, source="digits")
    test = fit_data((files.test, files.labels), model=model, source="digits test", batch_size=250)
    return Case(model, calibration, test, KLDivergence(), "accuracy", right, lambda found: float(found.mean()))


def encoder() -> nn.Module:
    """The sentence encoder in the folder that the environment names."""
    from transformers import AutoModel

    return Sentences(AutoModel.from_pretrained(os.environ[ENCODER])).eval()


def minilm(found: Case, folder: Path) -> Case:
    """The case with its model in a file, so that its artifacts can be exported."""
    path = folder / "minilm.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in found.model.module.state_dict().items()}, path)
    return replace(found, model=load_model(path, factory=FACTORY))


def case_named(name: str, models: Path, folder: Path, *, encoder: Path | None, samples: int, tests: int | None) -> Case:
    """A case, with at most so many calibration and test samples."""
    if name == "digits":
        return digits()
    found = case(name, models.resolve(), encoder=encoder, samples=samples, tests=tests)
    if name != "minilm" or encoder is None:
        return found
    os.environ[ENCODER] = str(encoder.resolve())
    return minilm(found, folder)
