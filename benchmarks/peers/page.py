"""Writes docs/peers.md from what `benchmarks.peers` and `benchmarks.peers.allocation` measured.

    python -m benchmarks.peers.page [--work FOLDER] [--picture docs/pictures/peers.png] > docs/peers.md

Nothing on the page is written by hand: rows come from FOLDER/rows.json and FOLDER/allocation.json, programs that did not run from
FOLDER/failed.json. The picture needs matplotlib.
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
test data that nothing was tuned on, with their standard errors. CPU seconds are of one thread, for the whole job; the peak memory is the
largest of the process. Measured on {date}.

![KL divergence by bits per weight, each program and mpq](pictures/peers.png)
"""
_PRODUCT = """
## Whole product: each program's own model

`python -m benchmarks.peers --models DIR`: stories9m, the linear layers of all blocks, 32 calibration windows of 256 tokens, 30 test
windows. mpq runs analyze, search without trials, and apply with all its steps, for no more bytes than the programs above it.

| program | bytes | bits per weight | KL on test data | CPU seconds | peak memory |
|---|---|---|---|---|---|
"""
_WHOLE = """
## Whole product: the whole file

The same model and data, with all weights and the bytes of the whole file. llama.cpp gets an importance matrix from the same windows. Most
rows of stories9m have 288 weights, which is not a multiple of 256, so llama.cpp falls back to other types for them. NNCodec needs no data:
one step for all weights, dependent quantization and arithmetic coding, as ISO/IEC 15938-17 describes them. "coded" means mpq's
entropy-coded formats: smaller in the file, int8 in memory. The other two sets run packed.

| program | bytes | bits per weight | KL on test data | CPU seconds | peak memory |
|---|---|---|---|---|---|
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
        peak_bytes: largest resident memory of its process; 0 if it was not measured.
    """

    name: str
    bytes: int
    bits: float
    error: float
    stderr: float
    seconds: float
    whole: bool = False
    peak_bytes: int = 0

    @property
    def line(self) -> str:
        """For a terminal."""
        return f"{self.name:34} {self.bytes:>10,} {self.bits:6.3f}  {self.error:.4f} ±{self.stderr:.4f} {self.seconds:8.0f}"

    @property
    def markdown(self) -> str:
        """For the page."""
        error, memory = f"{self.error:.4f} ±{self.stderr:.4f}", f"{self.peak_bytes / 2**20:,.0f} MiB" if self.peak_bytes else "-"
        return f"| {self.name.strip()} | {self.bytes:,} | {self.bits:.3f} | {error} | {self.seconds:.0f} | {memory} |"


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("peers-work"), help="folder with the results [default: peers-work]")
    parser.add_argument("--picture", type=Path, default=Path("docs/pictures/peers.png"), help="where to draw the errors by size")
    options = parser.parse_args()
    work = options.work
    rows = [Row(**each) for each in _read(work / "rows.json")]
    measured = date.fromtimestamp((work / "rows.json").stat().st_mtime)
    failed = [(each["name"], each["error"]) for each in _read(work / "failed.json")]
    draw(rows, options.picture)
    sys.stdout.write(page(rows, [Allocation(**each) for each in _read(work / "allocation.json")], measured, failed))


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the errors by size: blocks on the left, whole files on the right."""
    from matplotlib import pyplot

    figure, places = pyplot.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    for axes, whole, title in zip(places, (False, True), ("linear layers of all blocks", "whole file"), strict=True):
        shown = [row for row in rows if row.whole == whole]
        for name in dict.fromkeys(row.name.partition(" (")[0] for row in shown):
            own = [row for row in shown if row.name.partition(" (")[0] == name]
            bits, errors, bars = zip(*((row.bits, row.error, 2 * row.stderr) for row in own), strict=True)
            axes.errorbar(bits, errors, yerr=bars, fmt="o" if name.startswith(" ") else "x", label=name.strip())
        axes.set(yscale="log", title=title, xlabel="bits per weight", ylabel="KL on test data, ±2 standard errors")
        if shown:
            axes.set_xlim(min(row.bits for row in shown) - 0.25, max(row.bits for row in shown) + 0.25)
            axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def page(rows: Sequence[Row], allocations: Sequence[Allocation], measured: date, failed: Sequence[tuple[str, str]] = ()) -> str:
    """The whole page.

    Args:
        rows: of whole products.
        allocations: of plans under one quantizer.
        measured: when.
        failed: names and errors of programs that do not run here.
    """
    parts = [_NOTE.format(date=measured)]
    if failed:
        parts += ["\nDid not run here:\n\n", *(f"- {name}: {error}\n" for name, error in failed)]
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
