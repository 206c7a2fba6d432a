"""The main job on real models: plan, size and quality on data that nothing was tuned on, beside the best uniform plan.

    python -m benchmarks.main_job --models DIR [--only resnet20 stories15m] [--budgets 4.5bits 5bits 6bits] [--work FOLDER]

Needs DIR/cifar10 and DIR/stories15m with DIR/text. ResNet-20 is calibrated on 512 training images and judged on the 10,000 test
images; stories15m is calibrated on windows of `train_head` and judged on all windows of `valid_piece`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import mpq
from mpq.data.dataset import Data
from mpq.models.sources.loaded import LoadedModel
from mpq.records.evaluation import Evaluation
from mpq.records.plan import Plan
from mpq.search.final_decision import Finalist
from mpq.search.problem import Problem, build_groups
from mpq.search.run import SearchResult

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def cases(models: Path, only: list[str]) -> Iterator[tuple[str, LoadedModel, Data, Data]]:
    """Name, model, calibration data and test data."""
    if "resnet20" in only:
        model = mpq.load_model(models / "cifar10" / "resnet20.pt2")
        calibration = mpq.load_data(str(models / "cifar10" / "calibration.pt"), model=model)
        yield "resnet20", model, calibration, test_images(models, model)
    if "stories15m" in only:
        model = mpq.load_model(models / "stories15m")
        text = str(models / "text" / "tinystories.jsonl")
        calibration = mpq.load_data(f"{text}?split=train_head", model=model, seq_len=256, num_samples=24)
        yield "stories15m", model, calibration, mpq.load_data(f"{text}?split=valid_piece", model=model, seq_len=256)


def test_images(models: Path, model: LoadedModel) -> Data:
    """The 10,000 test images of CIFAR-10, normalised, with labels."""
    from mpq.models.inputs.fit_to_model import fit_data

    content = np.load(models / "cifar10" / "cifar10.npz")
    images, labels = (next(content[key] for key in content if "test" in key and content[key].ndim == ndim) for ndim in (4, 1))
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
    inputs = (torch.from_numpy(images).float() / 255 - mean) / deviation
    return fit_data((inputs, torch.from_numpy(labels).long()), model=model, source="cifar10 test", batch_size=250)


def uniform_plan(result: SearchResult, table: mpq.Sensitivity) -> tuple[Finalist, Plan] | None:
    """The uniform finalist with the smallest held-out error, as a plan."""
    uniform = min((f for f in result.finalists if f.uniform), key=lambda f: float(f.held_out.mean()), default=None)
    if uniform is None:
        return None
    schemes = Problem(build_groups(table), 0).schemes(uniform.choice)
    return uniform, result.plan.with_layers(schemes)


def judged(model: LoadedModel, plan: Plan, calibration: Data, test: Data, work: Path) -> tuple[str, str, float, float]:
    """Effective bits and file bytes (predicted = written), KL and accuracy or perplexity on the test data."""
    done = mpq.apply(model, plan, work / "artifact.mpq.safetensors", data=calibration, allow_unchanged=True)
    assert done.file_bytes == plan.size.file_bytes
    found = mpq.evaluate(model, mpq.load(done.path), test)
    return f"{plan.size.effective_bits:.4f}", f"{done.file_bytes:,}", found["kl_divergence"].quantized, _quality(found)


def _quality(found: Evaluation) -> float:
    """Perplexity of a language model, else accuracy."""
    names = {figure.name for figure in found.figures}
    return found["perplexity" if "perplexity" in names else "accuracy"].quantized


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=["resnet20", "stories15m"])
    parser.add_argument("--budgets", nargs="+", default=["4.5bits", "5bits", "6bits"])
    parser.add_argument("--candidates", default="4,8,16")
    parser.add_argument("--quantizer", default=None)
    parser.add_argument("--trials", type=int, default=None)
    parser.add_argument("--work", type=Path, default=None, help="keeps analyses between runs")
    options = parser.parse_args()
    table = Table("model", "budget", "plan", "bpw", "file bytes", "held-out", "test KL", "accuracy / perplexity", "seconds", box=None)
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        for name, model, calibration, test in cases(options.models, options.only):
            began = time.monotonic()
            settings = {"candidates": (options.candidates,)} | ({"quantizer": options.quantizer} if options.quantizer else {})
            analysis = mpq.analyze(model, calibration, output=work / f"{name}.sensitivity.jsonl", **settings)
            spent = f"{time.monotonic() - began:.0f}"
            print(name, "analysis", spent, "s", analysis.finish, *analysis.header.notes, sep="\n  ", flush=True)
            table.add_row(name, "", "reference", "32", "", "", "0", f"{_quality(mpq.evaluate(model, model, test)):.4f}", spent)
            measurer = mpq.PlanMeasurer(model, calibration, analysis)
            for budget in options.budgets:
                began = time.monotonic()
                extra = {} if options.trials is None else {"trials": options.trials}
                result = mpq.search(analysis, budget, measurer=measurer, **extra)
                seconds = f"{time.monotonic() - began:.0f}"
                print(name, budget, result.reason, f"{result.measurements} plans measured in {seconds} s", sep="\n  ", flush=True)
                held = result.plan.evidence["measured"]["held_out"]
                bits, size, kl, quality = judged(model, result.plan, calibration, test, work)
                table.add_row(name, budget, result.reason.split(":")[0], bits, size, f"{held:.4g}", f"{kl:.4g}", f"{quality:.4f}", seconds)
                uniform = uniform_plan(result, analysis)
                if uniform is not None:
                    bits, size, kl, quality = judged(model, uniform[1], calibration, test, work)
                    held = float(uniform[0].held_out.mean())
                    label = f"uniform {uniform[0].name}"
                    table.add_row(name, budget, label, bits, size, f"{held:.4g}", f"{kl:.4g}", f"{quality:.4f}", "")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
