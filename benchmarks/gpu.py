"""The whole way on an accelerator beside the CPU: the same figures within a tolerance, and how many times faster. Under five minutes.

    python -m benchmarks.gpu [--device cuda] [--hidden 512] [--layers 8] [--samples 32] [--quick]

The model is a small random Llama of transformers. Analysis (fisher, descent), a search of 8 trials, apply without recovery, and an
evaluation run on both devices; printed are the seconds of each, the ratio, and the largest relative difference of the figures. `--quick`
takes a tiny model and few samples; with `--device cpu` it shows that the benchmark itself runs where there is no accelerator.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mpq
from mpq.budget import Budget
from mpq.data.dataset import Data, data_from_batches
from mpq.evaluate.plan_measurer import PlanMeasurer
from mpq.evaluate.run import evaluate
from mpq.models.memory.devices import CPU, device_named, device_of, move
from mpq.models.sources.load import from_module
from mpq.search.run import search

TOLERANCE = 0.02  # of a figure, relative to the largest of its layer: float32 products sum in another order


def model_of(hidden: int, layers: int) -> torch.nn.Module:
    """A random Llama."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": hidden, "intermediate_size": 11 * hidden // 4, "num_hidden_layers": layers, "num_attention_heads": hidden // 64}
    made: torch.nn.Module = LlamaForCausalLM(LlamaConfig(**shape, vocab_size=4096, max_position_embeddings=256)).eval()
    return made


def way(module: torch.nn.Module, samples: Data) -> tuple[dict[str, float], dict[str, Any]]:
    """Seconds by stage, and the figures."""
    seconds, figures = dict[str, float](), dict[str, Any]()
    loaded = from_module(module)

    def timed(stage: str, work: Any) -> Any:
        began = time.perf_counter()
        found = work()
        if device_of(module).type == "cuda":
            torch.cuda.synchronize()
        seconds[stage] = time.perf_counter() - began
        return found

    table = timed("analyze", lambda: mpq.analyze(loaded, samples, candidates=("3", "4", "8"), quantizer="descent", method="fisher"))
    measurer = PlanMeasurer(loaded, samples, table)
    result = timed("search", lambda: search(table, Budget("4.5bits"), measurer=measurer, trials=8))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mpq.safetensors"
        timed("apply", lambda: mpq.apply(loaded, result.plan, path, data=samples, recovery=False))
        quantized = mpq.load(path, copy.deepcopy(module).to(CPU))
    move(quantized, device_of(module))
    found = timed("evaluate", lambda: evaluate(loaded, quantized, samples))
    figures["errors"] = {key: table.mean(*key) for key in table.errors}
    figures["evaluation"] = {each.name: each.quantized for each in found.figures}
    return seconds, figures


def apart(one: dict[Any, float], other: dict[Any, float]) -> float:
    """The largest difference of two sets of errors, relative to the largest error of the layer."""
    largest = {layer: max(value for (name, _), value in one.items() if name == layer) for layer, _ in one}
    return float(np.max([abs(one[key] - other[key]) / max(1e-30, largest[key[0]]) for key in one]))


def main() -> None:
    """Run both, print a table, and fail beyond the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.hidden, options.layers, options.samples = 64, 2, 12
    device = device_named(options.device)
    if device == CPU and options.device != "cpu":
        raise SystemExit("there is no accelerator here: nothing is compared; --device cpu --quick runs both sides on the CPU")
    tokens = torch.randint(0, 4096, (options.samples, 128), generator=torch.Generator().manual_seed(1))
    samples = data_from_batches([{"input_ids": part} for part in torch.split(tokens, 4 if options.quick else 8)])
    module = model_of(options.hidden, options.layers)
    there = copy.deepcopy(module)
    move(there, device)
    way(there, samples)  # once for the kernels to be loaded
    (fast, found), (slow, expected) = way(there, samples), way(module, samples)
    print(f"{torch.cuda.get_device_name(device) if device.type == 'cuda' else device}; {torch.get_num_threads()} CPU threads")
    for stage in slow:
        print(f"{stage:10} {slow[stage]:8.2f} s on the CPU {fast[stage]:8.2f} s on {device} {slow[stage] / fast[stage]:6.1f} times")
    difference = apart(expected["errors"], found["errors"])
    print(f"largest difference of an error: {difference:.2g} of the largest of its layer; tolerance {TOLERANCE}")
    print(f"evaluation on the CPU {expected['evaluation']}, on {device} {found['evaluation']}")
    if not difference <= TOLERANCE:
        raise SystemExit("the figures differ by more than the tolerance")


if __name__ == "__main__":
    main()
