"""How long a quantizer takes per weight and scheme, and how large its error is, next to an earlier revision in the same run.

    python -m benchmarks.quantize_speed [--before REV] [--quantizer descent] [--repeats 5] [--only 288x288 2048x2048]

Two processes, one with mpq of this tree and one with mpq of REV (a temporary `git worktree`), take the same cases in turn, on one
thread each; of `--repeats` rounds the least CPU time of each counts, so that other programs on the machine matter little. A case is a
few layers of one shape under one scheme; weights and inputs are random, with correlated inputs of uneven energy. Errors are e H e^T,
summed. The last lines are the ratios over all cases: time before / after, and error after / before.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SHAPES = ("288x288", "768x288", "288x768", "384x1536", "2048x2048")
SCHEMES = ("int4", "int8", "int4-g32", "int3-g64", "int4-asym-g32", "nf4-g64", "int4-g32-s8")
LAYERS = 4


def main() -> None:
    """Print a row for each case, then the ratios."""
    options = _options()
    if options.serve:
        serve(options.quantizer)
        return
    with _tree(options.before) as before:
        trees = {"before": before, "after": Path(__file__).parents[1]} if before else {"after": Path(__file__).parents[1]}
        workers = {name: _start(tree, options.quantizer) for name, tree in trees.items()}
        rows = [_row(shape, scheme, workers, options.repeats) for shape in options.only for scheme in SCHEMES]
        for worker in workers.values():
            assert worker.stdin is not None
            worker.stdin.close()
            worker.wait()
    if before:
        for name, values in (("time before / after", [row[0] for row in rows]), ("error after / before", [row[1] for row in rows])):
            mean = math.exp(sum(map(math.log, values)) / len(values))
            print(f"{name}: {mean:.4f} (geometric mean of {len(values)} cases, {min(values):.4f} to {max(values):.4f})")


def _row(shape: str, scheme: str, workers: dict[str, subprocess.Popen[str]], repeats: int) -> tuple[float, float]:
    found: dict[str, dict[str, Any]] = {}
    for _ in range(repeats):
        for name, worker in workers.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write(json.dumps([shape, scheme]) + "\n")
            worker.stdin.flush()
            answer = json.loads(worker.stdout.readline())
            if name not in found or answer["seconds"] < found[name]["seconds"]:
                found[name] = answer
    after, before = found["after"], found.get("before", found["after"])
    micro = {name: each["seconds"] / each["weights"] * 1e6 for name, each in found.items()}
    ratios = before["seconds"] / after["seconds"], after["error"] / before["error"]
    times = ", ".join(f"{name} {value:.3f} us" for name, value in micro.items())
    print(f"{shape:>10} {scheme:14} {times}; time before / after {ratios[0]:.2f}, error after / before {ratios[1]:.4f}", flush=True)
    return ratios


def serve(quantizer: str) -> None:
    """Answer cases, a line of JSON each, until the input ends."""
    import torch

    torch.set_num_threads(1)
    for line in sys.stdin:
        shape, scheme = json.loads(line)
        print(json.dumps(measured(quantizer, shape, scheme)), flush=True)


def measured(quantizer: str, shape: str, scheme: str) -> dict[str, float]:
    """CPU seconds, weights, and the summed output error of one case."""
    import torch

    from mpq.formats.scheme import parse_scheme
    from mpq.tensors.hessian import output_errors
    from mpq.tensors.quantizers.base import Statistics
    from mpq.tensors.quantizers.registry import quantizer_named

    rows, columns = map(int, shape.split("x"))
    generator = torch.Generator().manual_seed(0)
    layers = LAYERS if rows * columns < 1 << 20 else 1
    matrices = [0.05 * torch.randn(rows, columns, generator=generator) for _ in range(layers)]
    moments = []
    for _ in range(layers):
        mixing = torch.randn(columns, columns, generator=generator) / columns**0.5 + torch.eye(columns)
        mixing *= torch.exp(torch.randn(columns, generator=generator))
        inputs = torch.randn(4 * columns, columns, generator=generator) @ mixing
        moments.append(Statistics(inputs.T @ inputs / len(inputs), len(inputs)))
    chosen, wanted = quantizer_named(quantizer), parse_scheme(scheme)
    started = time.process_time()
    found = [chosen.quantize(matrix, wanted, moment) for matrix, moment in zip(matrices, moments, strict=True)]
    seconds = time.process_time() - started
    pairs = zip(found, matrices, moments, strict=True)
    error = sum(float(output_errors(one.dequantize() - matrix, moment.hessian).sum()) for one, matrix, moment in pairs)
    return {"seconds": seconds, "weights": layers * rows * columns, "error": error}


def _start(tree: Path, quantizer: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", "--quantizer", quantizer]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@contextmanager
def _tree(revision: str | None) -> Iterator[Path | None]:
    """A temporary work tree of a revision; None where there is none."""
    if revision is None:
        yield None
        return
    git = ["git", "-C", str(Path(__file__).parents[1])]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "before"
        subprocess.run([*git, "worktree", "add", "--quiet", "--detach", str(place), revision], check=True)
        try:
            yield place
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", str(place)], check=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", metavar="REV", help="a revision to compare with")
    parser.add_argument("--quantizer", default="descent")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=list(SHAPES), metavar="ROWSxCOLUMNS")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
