"""The files that are compared: of mpq, of ONNX Runtime's own tools, and of NNCF."""

from __future__ import annotations

import importlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mpq
from benchmarks.activations.cases import DYNAMIC, FACTORY
from benchmarks.activations.programs import Variant, arrays
from benchmarks.quantizer_cases import Case
from mpq.config import AnalysisSettings, SearchSettings
from mpq.data.batch import Batch
from mpq.export.base import Options
from mpq.export.run import export
from mpq.formats.activations import ALL, OFF
from mpq.formats.scheme import parse_scheme

_NNCF = """
import sys, numpy as np, nncf, openvino
source, samples, output = sys.argv[1:]
data = np.load(samples)
model = openvino.Core().read_model(source)
keys = sorted(data.files)
items = [[data[key][n : n + 1] for key in keys] for n in range(len(data[keys[0]]))]
made = nncf.quantize(model, nncf.Dataset(items, lambda item: item), subset_size=len(items))
openvino.save_model(made, output, compress_to_fp16=False)
"""


def made_by_mpq(name: str, chosen: Case, folder: Path) -> list[Variant]:
    """The model in fp32, and the plans of mpq: weights alone, all activations, and a mix."""
    kind = "8d" if name in DYNAMIC else "8"
    settings = AnalysisSettings(candidates=("int8",), quantizer="rtn", method="fisher", activations=(kind,))
    table = mpq.analyze(chosen.model, chosen.calibration, settings=settings, output=folder / f"{name}.sensitivity.jsonl")
    print(*(f"  {note}" for note in (table.finish or {}).get("notes", ())), sep="\n")
    print("  self-check of activations:", json.dumps((table.finish or {})["activations"]["check"]))
    total = sum(max(0.0, each.mean) for each in table.activations.values())
    plans = {
        label: mpq.search(table, "32bits", settings=SearchSettings(trials=0, activations=activations)).plan
        for label, activations in (("weights", OFF), ("w8a8", ALL), ("mixed", str(total / 2)))
    }
    bare = plans["weights"].with_layers(dict.fromkeys(plans["weights"].layers, parse_scheme("fp32")))
    return [_exported(name, label, plan, chosen, folder) for label, plan in {"fp32": replace(bare, budget=None), **plans}.items()]


def _exported(name: str, label: str, plan: mpq.Plan, chosen: Case, folder: Path) -> Variant:
    path, note = folder / f"{name}-{label}.onnx", folder / f"{name}-{label}.txt"
    if note.exists():
        return Variant(label, path, note.read_text())
    artifact = folder / f"{name}-{label}.mpq.safetensors"
    mpq.apply(chosen.model, plan, artifact, recovery=False, allow_unchanged=True)
    factory = FACTORY if name == "minilm" else None
    options = Options(_sample_file(chosen, folder), chosen.model.path, factory=factory, trust=True, fingerprint=False)
    done = export(artifact, "onnx", path, options=options)
    told = next((line for line in done.notes if "compared" in line), "")
    note.write_text(f"{len(plan.activations)} groups; {told}")
    return Variant(label, done.path, note.read_text())


def _sample_file(chosen: Case, folder: Path) -> str | None:
    if chosen.model.kind == "export":
        return None
    batch = chosen.calibration.batches[0]
    path = folder / "sample.pt"
    torch.save(dict(batch.kwargs) or batch.args[0], path)
    return str(path)


class _Reader:
    """Calibration samples one by one, as ONNX Runtime asks for them."""

    def __init__(self, chosen: Case, path: Path, samples: int) -> None:
        runtime = importlib.import_module("onnxruntime")
        names = [given.name for given in runtime.InferenceSession(path).get_inputs()]
        self._items = [dict(zip(names, arrays(each), strict=True)) for each in _singles(chosen, samples)]
        self.rewind()

    def get_next(self) -> Any:
        return next(self._left, None)

    def rewind(self) -> None:
        self._left = iter(self._items)


def _singles(chosen: Case, samples: int) -> Iterator[Batch]:
    count = 0
    for batch in chosen.calibration.batches:
        for place in range(batch.size):
            if count == samples:
                return
            count += 1
            yield batch.select([place])


def by_onnx_runtime(name: str, chosen: Case, source: Path, folder: Path, samples: int) -> Iterator[Variant]:
    """What ONNX Runtime's own tools make of the fp32 file."""
    tools = importlib.import_module("onnxruntime.quantization")
    shapes = importlib.import_module("onnxruntime.quantization.shape_inference")
    ready = folder / f"{name}-ready.onnx"
    if not ready.exists():
        shapes.quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
    for method in ("MinMax", "Entropy", "Percentile") if name not in DYNAMIC else ("MinMax",):
        path = folder / f"{name}-ort-{method}.onnx"
        if not path.exists():
            tools.quantize_static(
                str(ready),
                str(path),
                _Reader(chosen, ready, samples),
                quant_format=tools.QuantFormat.QDQ,
                per_channel=True,
                activation_type=tools.QuantType.QUInt8,
                weight_type=tools.QuantType.QInt8,
                calibrate_method=tools.CalibrationMethod[method],
            )
        yield Variant(f"ort static {method.lower()}", path)
    path = folder / f"{name}-ort-dynamic.onnx"
    try:
        if not path.exists():
            tools.quantize_dynamic(str(ready), str(path), per_channel=True, weight_type=tools.QuantType.QInt8)
        yield Variant("ort dynamic", path)
    except Exception as error:  # its shape inference refuses some graphs
        print(f"  ort dynamic fails: {str(error).splitlines()[0][:120]}")


def by_nncf(name: str, chosen: Case, source: Path, folder: Path, python: Path, samples: int) -> Variant | None:
    """NNCF in an environment of its own."""
    if name in DYNAMIC:
        return None
    path = folder / f"{name}-nncf.xml"
    if path.exists():
        return Variant("nncf", path)
    columns = list(zip(*(arrays(each) for each in _singles(chosen, samples)), strict=True))
    named: dict[str, Any] = {f"x{place}": np.concatenate(each) for place, each in enumerate(columns)}
    np.savez(folder / "samples.npz", **named)
    done = subprocess.run(
        [python, "-c", _NNCF, str(source), str(folder / "samples.npz"), str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
    )
    if done.returncode:
        print("  nncf failed:", done.stderr.strip().splitlines()[-1])
        return None
    return Variant("nncf", path)
