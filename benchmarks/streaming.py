"""A synthetic checkpoint of 8 GB in shards, applied piece by piece: throughput against plain copying, and the memory of the process.

    python -m benchmarks.streaming --folder DIR [--gigabytes 8]

DIR needs 14 GB of free space. Weights are bfloat16; the plan gives every matrix int4-g32, rounded to nearest. The plain copy reads and
writes as many bytes as apply does, in one thread, and syncs every file. Before each of the two the disk takes what is still to be
written, so that neither waits for the other; disks and page caches differ much from one round to the next, so the median counts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from mpq.apply.shard_job import apply_shards
from mpq.formats.scheme import parse_scheme
from mpq.models.sources.checkpoint_files import checkpoint_files, tensors_of
from mpq.records.layer import Layer
from mpq.records.plan import Plan, plan_for
from mpq.records.sensitivity_header import Rest

HIDDEN, WIDE, VOCABULARY = 4096, 14336, 64000
SHARE, PEAK = 0.40, 1.5e9
_BLOCK = 1 << 24


def make(folder: Path, gigabytes: float) -> Path:
    """Transformer blocks of the sizes of an 8B model, one or two to a file."""
    source = folder / "checkpoint"
    source.mkdir(parents=True)
    noise = torch.randn(WIDE, HIDDEN).mul_(0.02).bfloat16()
    written, number = 0, 0
    while written < gigabytes * 1e9:
        shapes = {
            "q": (HIDDEN, HIDDEN),
            "k": (1024, HIDDEN),
            "v": (1024, HIDDEN),
            "o": (HIDDEN, HIDDEN),
            "gate": (WIDE, HIDDEN),
            "up": (WIDE, HIDDEN),
        }
        tensors = {f"layers.{number}.{name}.weight": noise[: shape[0]].clone() for name, shape in shapes.items()}
        tensors |= {f"layers.{number}.down.weight": noise.t().contiguous(), f"layers.{number}.norm.weight": torch.ones(HIDDEN)}
        if number == 0:
            tensors["embedding.weight"] = torch.randn(VOCABULARY, HIDDEN).bfloat16()
        path = source / f"model-{number:05}.safetensors"
        save_file(tensors, path)
        written, number = written + path.stat().st_size, number + 1
    return source


def plan_of(source: Path) -> Plan:
    tensors = [tensor for path in checkpoint_files(source) for tensor in tensors_of(path) if len(tensor.shape) == 2]
    layers = [Layer(tensor.name.removesuffix(".weight"), (tensor.name,), tensor.shape, (0,), "bfloat16") for tensor in tensors]
    schemes = {layer.name: parse_scheme("int4-g32") for layer in layers}
    model = {"kind": "memory", "sha256": "0" * 64}
    return plan_for(layers, schemes, model=model, quantizer="rtn", rest=Rest(0, 0, 0, 0))


def copy(source: Path, target: Path, written: int) -> float:
    """Seconds to read all of `source` and write `written` bytes of it to `target`, synced."""
    start = time.perf_counter()
    files = checkpoint_files(source)
    share = written / sum(path.stat().st_size for path in files)
    target.mkdir()
    for path in files:
        left = round(share * path.stat().st_size)
        with path.open("rb") as reading, (target / path.name).open("wb") as writing:
            while block := reading.read(_BLOCK):
                writing.write(block[:left])
                left -= len(block[:left])
            writing.flush()
            os.fsync(writing.fileno())
    seconds = time.perf_counter() - start
    shutil.rmtree(target)
    return seconds


def child(source: Path, output: Path) -> None:
    """Apply in a process of its own, and say how long it took and how much memory the process had at its peak."""
    start = time.perf_counter()
    done = apply_shards(source, plan_of(source), output)
    seconds, of_cores = time.perf_counter() - start, time.process_time()
    peak = next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "of_cores": of_cores, "peak": peak, "written": done.file_bytes}))


def _met(holds: bool) -> str:
    return "yes" if holds else "NO"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--gigabytes", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder = given.folder / "mpq-streaming"  # removed at the end
    output = folder / "output"
    if given.child:
        child(folder / "checkpoint", output)
        return
    try:
        source = make(folder, given.gigabytes)
        size = sum(path.stat().st_size for path in checkpoint_files(source))
        print(f"checkpoint: {size / 1e9:.2f} GB in {len(checkpoint_files(source))} files, {os.cpu_count()} cores", flush=True)
        shares, peaks = [], []
        for _ in range(given.rounds):
            os.sync()
            line = [sys.executable, "-m", "benchmarks.streaming", "--folder", str(given.folder), "--child"]
            found = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
            shutil.rmtree(output)
            os.sync()
            plain = copy(source, folder / "copy", found["written"])
            shares.append(plain / found["seconds"])
            peaks.append(found["peak"])
            cores = f"{size / found['of_cores'] / 1e6:.0f} MB per second of a core, start included"
            speeds = f"apply {size / found['seconds'] / 1e6:.0f} MB/s of the checkpoint ({cores}), plain copy {size / plain / 1e6:.0f} MB/s"
            print(f"{speeds}: share {shares[-1]:.2f}; peak {peaks[-1] / 1e9:.2f} GB", flush=True)
        share, peak = statistics.median(shares), max(peaks)
        bars = f"(at least {SHARE}: {_met(share >= SHARE)})", f"(at most {PEAK / 1e9} GB: {_met(peak <= PEAK)})"
        print(f"median share {share:.2f} {bars[0]}, of {min(shares):.2f} to {max(shares):.2f}; highest peak {peak / 1e9:.2f} GB {bars[1]}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
