"""What training wins back at fixed bytes: what `mpq recover` makes of the artifact of `mpq apply`, on data that nothing was tuned on.

    python -m benchmarks.recover --models DIR [--only stories260k:int3-g32 resnet20:ternary] [--train 916] [--batch-size 4] [--epochs 6]

DIR holds stories260k/, stories9m/ and cifar10/. A row is a model and a plan: a scheme for all layers, a scheme with the first and the last
layer at int8 (`ternary`), or bits per weight, mixed from 2..8. Each model is analyzed by second-order sensitivities, the plan is the exact
solution of the table, and `mpq apply` takes all of its own steps. Training data are windows that the model wrote itself (stories260k),
`sampled.pt` (stories9m), and train images without labels that the calibration does not hold (ResNet-20). CPU seconds are of this process.
Every row is added to FOLDER/recover.jsonl.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.quantizer_cases import Case, Judge, case, normalized
from mpq.analyze.run import analyze
from mpq.apply.run import apply
from mpq.apply.train import stored_state, train_artifact
from mpq.budget import Budget
from mpq.data.dataset import Data
from mpq.models.inputs.fit_to_model import fit_data
from mpq.models.inputs.load_data import load_data
from mpq.models.inputs.own_text import with_own_text
from mpq.records.artifact_files import read_header
from mpq.records.plan import Plan
from mpq.recovery.training.settings import TrainSettings, level_for
from mpq.search.run import search

ROWS = (
    "stories260k:int3-g32",
    "stories260k:2.5",
    "stories260k:4.5",
    "stories9m:int3-g32",
    "stories9m:2.5",
    "stories9m:4.5",
    "resnet20:ternary",
    "resnet20:2.5",
)
_ENDS = {"resnet20": ("conv1", "linear")}  # the first and the last layer
_SEED = 11  # of the windows to train on


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    model: str
    plan: str
    settings: dict[str, Any]
    original: float
    before: tuple[float, float]
    after: tuple[float, float]
    quality: str
    kept: bool
    apply_seconds: float
    seconds: float
    how: str

    @property
    def line(self) -> str:
        """For the table."""
        ratio = self.after[0] / self.before[0]
        figures = f"KL {self.before[0]:.4f} -> {self.after[0]:.4f} ({ratio:.3f})"
        quality = f"{self.quality} {self.before[1]:.4f} -> {self.after[1]:.4f}, original {self.original:.4f}"
        seconds = f"CPU s {self.apply_seconds:.0f} + {self.seconds:.0f}"
        return f"{self.model:11} {self.plan:9} {figures}  {quality}  {seconds}{'' if self.kept else '  NOT KEPT'}  {self.how}"


def main() -> None:
    """Measure and print the rows that are asked for."""
    options = _options()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        model, _, plan = name.partition(":")
        found = measured(model, plan, options)
        with (options.work / "recover.jsonl").open("a") as file:
            file.write(json.dumps(vars(found)) + "\n")
        print(found.line, flush=True)


def measured(name: str, wanted: str, options: argparse.Namespace) -> Row:
    """One row."""
    setting = case(name, options.models, encoder=None, samples=options.samples, tests=options.tests)
    judge = Judge(setting)
    plan, artifact = _plan(name, wanted, setting, options.work), options.work / f"{name}.{wanted}.mpq.safetensors"
    began = time.process_time()
    if not artifact.exists():
        apply(setting.model, plan, artifact, data=setting.calibration)
    applied = time.process_time() - began
    header = read_header(artifact)
    before = judge(stored_state(artifact, header, list(header.layers), setting.model).values(header.layers))
    level = options.level or level_for(plan.layers.values())[0]
    settings = TrainSettings(level, options.epochs, None, options.rate, blocks=options.blocks, batch_size=options.batch_size)
    data = training_data(name, setting, options)
    output, began = options.work / f"{name}.{wanted}.recovered.mpq.safetensors", time.process_time()
    folder = options.work / f"{name}.{wanted}.recover"  # a killed run resumes
    done = train_artifact(setting.model, plan, artifact, output, data=data, plan_data=setting.calibration, settings=settings, folder=folder)
    done.finish()
    seconds, after = time.process_time() - began, before
    if done.path is not None:
        after = judge(stored_state(output, read_header(output), list(header.layers), setting.model).values(header.layers))
    chosen = settings.to_dict() | {"train": data.samples, "batch_size": data.batches[0].size}
    kept = done.path is not None
    told = "; ".join(made.reason for made in done.decisions)
    return Row(name, wanted, chosen, judge({})[1], before, after, setting.quality, kept, applied, seconds, told)


def _plan(name: str, wanted: str, setting: Case, work: Path) -> Plan:
    mixed = wanted.replace(".", "").isdigit()
    candidates = ("2..8,16",) if mixed else (wanted, "8") if name in _ENDS else (wanted,)
    output = work / f"{name}.{'mixed' if mixed else wanted}.sensitivity.jsonl"
    table = analyze(setting.model, setting.calibration, candidates=candidates, method="fisher", output=output)
    pins = {} if mixed or name not in _ENDS else dict.fromkeys(_ENDS[name], "int8")
    if pins:
        pins |= {layer.name: wanted for layer in table.layers if layer.name not in pins}
    return search(table, Budget(f"{wanted}bits" if mixed else "100%"), trials=0, pins=pins).plan


def training_data(name: str, setting: Case, options: argparse.Namespace) -> Data:
    """The samples to train on; `options` has their number (`train`) and the size of batches (`batch_size`), each None for the default."""
    if name == "stories260k":
        text = with_own_text(setting.model.module, setting.calibration, options.train or 916, seed=_SEED)
        assert text is not None
        return replace(text, batches=text.batches[len(setting.calibration.batches) :]).rebatch(options.batch_size or 16)
    if name == "stories9m":
        path = str(options.models / name / "sampled.pt")
        return load_data(path, model=setting.model, num_samples=options.train, batch_size=options.batch_size)
    images = torch.from_numpy(np.load(options.models / "cifar10" / "cifar10.npz")["train_images"][512 : 512 + (options.train or 1488)])
    return fit_data(normalized(images), model=setting.model, source="train images", batch_size=options.batch_size or 32)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=list(ROWS), help="MODEL:PLAN")
    parser.add_argument("--samples", type=int, help="calibration samples [default: as benchmarks.quantizers]")
    parser.add_argument("--tests", type=int, help="test samples, likewise")
    parser.add_argument("--train", type=int, help="samples to train on [default: 916 windows, or all that there are]")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rate", type=float, help="[default: found by short runs]")
    parser.add_argument("--blocks", action=argparse.BooleanOptionalAction, default=True, help="block by block first")
    parser.add_argument("--level", help="[default: by the bits of the plan]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("recover-work"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
