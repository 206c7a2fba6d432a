"""Whole products side by side: each peer's own model against mpq's artifact of no more bytes, over the linear layers of all blocks, or over
all weights where a peer writes a whole file.

    python -m benchmarks.peers --models DIR [--only auto_round-w4g32] [--candidates 4,8,16 8,16,fine] [--work FOLDER]
    python -m benchmarks.peers.allocation --models DIR [--work FOLDER]
    python -m benchmarks.peers.page [--work FOLDER] > docs/peers.md

DIR holds stories9m/. Each peer is a program in `workers/`. It runs in a virtual environment that is made in FOLDER, with the newest
versions of its packages. Everybody gets the same 32 calibration windows; the error is the KL divergence on the 30 test windows, with its
standard error. Bytes are those of codes, scales and zero points, or of the file. Seconds are of CPU time on one thread, for the whole job:
for mpq, analyze, search without trials, and apply with all its steps. A peer that does not run is reported with its error, here and on the
page, and the others go on. Everything is kept in FOLDER, so a second call resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.base import Peer, PeerError, peak_bytes, reset_peak, run
from benchmarks.peers.page import Row
from benchmarks.quantizer_cases import Case, case
from mpq.analyze.run import analyze
from mpq.apply.run import apply
from mpq.apply.train import stored_state
from mpq.budget import Budget, Scope
from mpq.errors import BudgetError
from mpq.models.running.reference import Reference
from mpq.records.artifact_files import read_header
from mpq.records.sensitivity import standard_error
from mpq.search.run import search

_TORCH = ("torch", "transformers", "safetensors", "numpy")
_AUTO_ROUND = ("auto-round", *_TORCH)
_FOR_NNCODEC = ("numpy<2", "h5py", "torch", "safetensors")
NNCODEC = Peer("nncodec-qp-35", "run_nncodec.py", _FOR_NNCODEC, ("-35",), whole=True, alone=("nncodec==2.1.3",))
_LLAMA_CPP = ("llama-cpp-python", "gguf", *_TORCH)
PEERS = (
    Peer("auto_round-w4g32", "run_auto_round.py", _AUTO_ROUND, ("4", "32", "200")),
    Peer("auto_round-w3g32", "run_auto_round.py", _AUTO_ROUND, ("3", "32", "200")),
    Peer("rtn-w4g32", "run_auto_round.py", _AUTO_ROUND, ("4", "32", "0")),
    Peer("hqq-w4g64", "run_hqq.py", ("hqq", *_TORCH), ("4", "64")),
    Peer("llama.cpp-Q4_K_M", "run_llama_cpp.py", _LLAMA_CPP, ("Q4_K_M",), whole=True),
    Peer("llama.cpp-IQ4_NL-pure", "run_llama_cpp.py", _LLAMA_CPP, ("IQ4_NL", "pure"), whole=True),
    NNCODEC,
)
_IGNORED = ("model.embed_tokens", "lm_head")
_WINDOWS = 32
CODED = "coded"
_failed: list[dict[str, str]] = []


def main() -> None:
    """Print the table, peer by peer."""
    options = _options()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    setting = case("stories9m", options.models, encoder=None, samples=_WINDOWS, tests=None)
    folder = options.models / "stories9m"
    windows = options.work / "calibration.pt"
    torch.save(torch.load(folder / "calibration.pt", weights_only=True)[:_WINDOWS].clone(), windows)
    print(f"{'':34} {'bytes':>10} {'bits':>6}  {'KL':>14} {'CPU s':>8}")
    peers = [row for peer in PEERS if peer.name in options.only if (row := _peer(setting, peer, folder, windows, options.work)) is not None]
    (options.work / "failed.json").write_text(json.dumps(_failed))
    rows: list[Row] = []
    for whole, size in sorted({(row.whole, row.bytes) for row in peers}, key=lambda each: (each[0], -each[1])):
        rows += [row for row in peers if (row.whole, row.bytes) == (whole, size)]
        for candidates in (*options.candidates, *([CODED] if whole else ())):
            try:
                rows.append(own(setting, candidates, size, options.work, whole=whole))
                print(rows[-1].line, flush=True)
            except BudgetError as problem:
                print(f"  mpq {candidates}: {problem}", flush=True)
            (options.work / "rows.json").write_text(json.dumps([asdict(row) for row in rows]))


def _peer(setting: Case, peer: Peer, folder: Path, windows: Path, work: Path) -> Row | None:
    """The row of a peer; None, after a line with its error, if it does not run here."""
    try:
        found = run(peer, folder.resolve(), windows.resolve(), work.resolve())
    except PeerError as problem:
        print(f"{peer.name:34} does not run here: {problem}", flush=True)
        _failed.append({"name": peer.name, "error": str(problem)})
        return None
    weights = sum(tensor.numel() for tensor in found.weights.values())
    error = _error(setting, found.weights)
    name = f"{peer.name} ({found.version})"
    row = Row(name, found.bytes, 8 * found.bytes / weights, *error, found.seconds, peer.whole, found.peak_bytes)
    print(row.line, flush=True)
    return row


def own(setting: Case, candidates: str, size: int, work: Path, *, whole: bool = False) -> Row:
    """mpq's row at no more bytes than `size`, those of the whole file if `whole`."""
    stem = f"{candidates.replace(',', '+')}.{size}"
    ignore = () if whole else _IGNORED
    scope: Scope = "file" if whole else "layers"
    record, artifact = work / f"{stem}.json", work / f"{stem}.mpq.safetensors"
    if not record.exists():
        reset_peak()
        began = time.process_time()  # for the whole job, so that no analysis of an earlier row is read
        found = analyze(setting.model, setting.calibration, candidates=candidates, method="fisher", ignore=ignore)
        plan = search(found, Budget(f"{size}B", scope), trials=0).plan
        apply(setting.model, plan, artifact, data=setting.calibration)
        seconds, memory = time.process_time() - began, peak_bytes()
        header = read_header(artifact)
        values = stored_state(artifact, header, list(header.layers), setting.model).values(header.layers)
        size, bits = plan.size.layer_bytes, plan.size.effective_bits
        if whole:
            size = artifact.stat().st_size
            bits = 8 * size / sum(parameter.numel() for parameter in setting.model.module.parameters())
        row = Row(f"  mpq {candidates}", size, bits, *_error(setting, values), seconds, whole, memory)
        record.write_text(json.dumps(asdict(row)))
    return Row(**json.loads(record.read_text()))


def _error(setting: Case, weights: dict[str, Any]) -> tuple[float, float]:
    errors = Reference(setting.model.module, setting.test, setting.metric).errors(weights).numpy()
    return float(errors.mean()), standard_error(errors)


def _options() -> argparse.Namespace:
    names = [peer.name for peer in PEERS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, metavar="DIR", help="folder with stories9m/")
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="PEER", help=f"some of: {', '.join(names)}")
    parser.add_argument(
        "--candidates",
        nargs="*",
        default=["4,8,16", "8,16,fine"],
        help="of mpq, a row for each, beside coded formats for whole files [default: 4,8,16 8,16,fine]",
    )
    parser.add_argument(
        "--work", type=Path, default=Path("peers-work"), metavar="FOLDER", help="environments and results [default: peers-work]"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
