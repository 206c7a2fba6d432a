"""Held-out KL of uniform plans under each quantizer, with seconds: how much a quantizer buys at the same bytes.

    python -m benchmarks.quantizers --models DIR [--model stories15m] [--schemes int4-g32 int3-g32] [--quantizers rtn mse gptq]

DIR holds stories15m/, text/tinystories.jsonl and cifar10/ (resnet20.pt2, calibration.pt, cifar10.npz).
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import torch

from mpq.models.batches import Data, data_from_batches
from mpq.models.data import load_data
from mpq.models.discover import discover
from mpq.models.load import load_model
from mpq.models.loaded import LoadedModel
from mpq.models.metrics import KLDivergence
from mpq.models.reference import Reference
from mpq.models.statistics import statistics_for
from mpq.models.variants import Variants
from mpq.schemes import parse_scheme
from mpq.tensors.quantizers.registry import QUANTIZERS, quantizer_named

MODELS = ("stories15m", "stories260k", "resnet20")
SCHEMES = ("int4-g32", "int4-g64", "int3-g32")


def load(folder: Path, name: str, samples: int) -> tuple[LoadedModel, Data, Data]:
    """The model, calibration data and held-out data."""
    if name == "resnet20":
        model = load_model(folder / "cifar10" / "resnet20.pt2")
        calibration = load_data(str(folder / "cifar10" / "calibration.pt"), model=model)
        return model, calibration, data_from_batches(list(torch.split(images(folder), 256)))
    model = load_model(folder / name)
    if name == "stories260k":
        text = own_text(model, 3 * samples)
        return model, data_from_batches(list(torch.split(text[:samples], 8))), data_from_batches(list(torch.split(text[samples:], 8)))
    text_file = folder / "text" / "tinystories.jsonl"
    calibration, held_out = (
        load_data(f"{text_file}?split={split}", model=model, seq_len=256, num_samples=samples) for split in ("train_head", "valid_piece")
    )
    return model, calibration, held_out


def images(folder: Path) -> torch.Tensor:
    """The first 1,024 test images, normalised."""
    archive = np.load(folder / "cifar10" / "cifar10.npz")
    name = next(key for key in archive.files if "test" in key and archive[key].ndim == 4)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = torch.from_numpy(archive[name][:1024]).float() / 255
    return (pixels - mean[:, None, None]) / deviation[:, None, None]


def own_text(model: LoadedModel, samples: int) -> torch.Tensor:
    """Sequences of 128 tokens that the model writes by sampling."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.ones(samples, 1, dtype=torch.int64)
    with torch.no_grad():
        for _ in range(127):
            logits = model.module(ids, use_cache=False).logits[:, -1]
            ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1, generator=generator)], 1)
    return ids


def main() -> None:
    """Print one row per scheme and quantizer."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--model", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--schemes", nargs="+", default=list(SCHEMES))
    parser.add_argument("--quantizers", nargs="+", default=list(QUANTIZERS), choices=list(QUANTIZERS))
    parser.add_argument("--samples", type=int, default=16)
    chosen = parser.parse_args()
    print(f"{'model':12} {'scheme':14} {'quantizer':9} {'calibration':>11} {'held out':>9} {'/ rtn':>6} {'seconds':>8}")
    for name in chosen.model:
        table(chosen.models, name, chosen.schemes, chosen.quantizers, chosen.samples)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def table(folder: Path, name: str, schemes: list[str], quantizers: list[str], samples: int) -> None:
    """Measure one model."""
    model, calibration, held_out = load(folder, name, samples)
    layers = discover(model.module, calibration.batches[:1]).layers
    references = [Reference(model.module, data, KLDivergence()) for data in (calibration, held_out)]
    collected, start = {}, time.perf_counter()
    needing = [quantizer_named(one) for one in quantizers if quantizer_named(one).needs_statistics]
    if needing:
        collected = dict(statistics_for(needing[0], model.module, layers, calibration))
    print(
        f"{name:12} {'statistics of ' + str(len(collected)) + ' of ' + str(len(layers)) + ' layers':48} {time.perf_counter() - start:15.1f}"
    )
    for scheme in map(parse_scheme, schemes):
        basis = None
        for quantizer in quantizers:
            start = time.perf_counter()
            weights = Variants(model.module, layers, quantizer_named(quantizer), statistics=collected).weights(
                {layer.name: scheme for layer in layers}
            )
            seconds = time.perf_counter() - start
            seen, unseen = (float(reference.errors(weights).mean()) for reference in references)
            basis = basis or unseen
            print(f"{name:12} {scheme!s:14} {quantizer:9} {seen:11.4f} {unseen:9.4f} {unseen / basis:6.2f} {seconds:8.1f}", flush=True)


if __name__ == "__main__":
    main()
