"""Writes docs/peers.md from what `benchmarks.peers` and `benchmarks.peers.allocation` measured.

    python -m benchmarks.peers.page [--work FOLDER] > docs/peers.md

Nothing on the page is written by hand: rows come from FOLDER/rows.json and FOLDER/allocation.json.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.peers.allocation import Allocation, mean_ratio

_NOTE = """<!-- written by `python -m benchmarks.peers.page`; do not edit -->
# Beside other quantizers

All figures were measured with the scripts in `benchmarks/peers`, on the same model, data and machine, with bytes counted in the same way.
Each other program runs in an environment of its own with the version in the table. Errors are KL divergences from the unquantized model on
test data that nothing was tuned on, with their standard errors. CPU seconds are of one thread, for the whole job. Measured on {date}.
"""
_PRODUCT = """
## Whole product: each program's own model

`python -m benchmarks.peers --models DIR`: stories9m, the linear layers of all blocks, 32 calibration windows of 256 tokens, 30 test
windows. mpq runs analyze, search without trials, and apply with all its steps, for no more bytes than the programs above it.

| program | bytes | bits per weight | KL on test data | CPU seconds |
|---|---|---|---|---|
"""
_WHOLE = """
## Whole product: the whole file

The same model and data, with all weights and the bytes of the whole file. llama.cpp gets an importance matrix from the same windows. Most
rows of stories9m have 288 weights, which is not a multiple of 256, so llama.cpp falls back to other types for them. NNCodec needs no data:
one step for all weights, dependent quantization and arithmetic coding, as ISO/IEC 15938-17 describes them. "coded" means mpq's
entropy-coded formats: smaller in the file, int8 in memory. The other two sets run packed.

| program | bytes | bits per weight | KL on test data | CPU seconds |
|---|---|---|---|---|
"""
_ALLOCATION = """
## Allocation: the bits of each layer

`python -m benchmarks.peers.allocation --models DIR`: plans of 4 and 8 bits that other programs chose for stories15m, and the plan that mpq
chooses for no more bytes. Both are quantized by rounding to nearest, int4 in groups of 32 and int8 per row. The last column is the
difference in its own standard errors.

| program | bits per weight | its KL on test data | mpq's | ratio | difference |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """One line of the whole product's table.

    Args:
        name: of the program with its version; mpq's begin with two spaces.
        bytes: of codes, scales and zero points, or of the file.
        bits: per weight.
        error: KL divergence on test data.
        stderr: of it.
        seconds: of CPU time.
        whole: all weights and the bytes of the file are compared.
    """

    name: str
    bytes: int
    bits: float
    error: float
    stderr: float
    seconds: float
    whole: bool = False

    @property
    def line(self) -> str:
        """For a terminal."""
        return f"{self.name:34} {self.bytes:>10,} {self.bits:6.3f}  {self.error:.4f} ±{self.stderr:.4f} {self.seconds:8.0f}"

    @property
    def markdown(self) -> str:
        """For the page."""
        return f"| {self.name.strip()} | {self.bytes:,} | {self.bits:.3f} | {self.error:.4f} ±{self.stderr:.4f} | {self.seconds:.0f} |"


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("peers-work"))
    work = parser.parse_args().work
    rows = [Row(**each) for each in _read(work / "rows.json")]
    measured = date.fromtimestamp((work / "rows.json").stat().st_mtime)
    sys.stdout.write(page(rows, [Allocation(**each) for each in _read(work / "allocation.json")], measured))


def page(rows: Sequence[Row], allocations: Sequence[Allocation], measured: date) -> str:
    """The whole page."""
    parts = [_NOTE.format(date=measured)]
    for title, whole in ((_PRODUCT, False), (_WHOLE, True)):
        shown = [row for row in rows if row.whole == whole]
        if shown:
            parts += [title, *(f"{row.markdown}\n" for row in shown), "\n", *(f"{line}\n" for line in told(shown))]
    if allocations:
        lines = (
            f"| {row.peer} | {row.bits:.3f} | {row.theirs:.4f} | {row.ours:.4f} | {row.ratio:.2f} | {row.noise:+.1f} |\n"
            for row in sorted(allocations, key=lambda row: (row.peer, row.bits))
        )
        lost = sum(row.noise < -2 for row in allocations)
        told_of = f"\nThe geometric mean of the {len(allocations)} ratios is {mean_ratio(allocations):.2f}; "
        told_of += f"mpq's plan is worse by more than two standard errors in {lost} of them.\n"
        parts += [_ALLOCATION, *lines, told_of]
    return "".join(parts)


def told(rows: Sequence[Row]) -> Iterator[str]:
    """Sentences: by how much mpq's error is smaller than that of the best program above it, and how long it takes in comparison."""
    peers: list[Row] = []
    for own, group in groupby(rows, key=lambda row: row.name.startswith(" ")):
        if not own:
            peers = list(group)
            continue
        peer = min(peers, key=lambda each: each.error)
        for row in group:
            sure = "" if abs(row.error - peer.error) > 2 * math.hypot(row.stderr, peer.stderr) else ", which is within noise"
            share = f"{row.error / peer.error:.2f} of the error of {peer.name}{sure}"
            yield f"- {row.name.strip()}, {row.bits:.3f} bits: {share}, in {row.seconds / peer.seconds:.1f} times its CPU time."


def _read(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text())) if path.exists() else []


if __name__ == "__main__":
    main()
