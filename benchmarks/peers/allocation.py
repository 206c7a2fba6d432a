"""Allocations side by side: the bits per layer that peers chose, and what mpq chooses for no more bytes, all under one quantizer.

    python -m benchmarks.peers.allocation --models DIR [--work FOLDER]

DIR holds stories15m/, text/ and stories15m-peer-plans.json: plans of 4 and 8 bits for the linear layers of all blocks, made with 16
calibration windows. mpq gets the same windows; the quantizer is round-to-nearest, int4 in groups of 32 and int8 per row. The error is the
KL divergence on 30 test windows, with the standard error of the difference. Rows go to FOLDER/allocation.json; `page.py` makes the page.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.quantizer_cases import Case, case
from mpq.analyze.run import analyze
from mpq.budget import Budget
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.models.layers.discover import discover
from mpq.models.running.fake_quantized import Variants, as_parameters
from mpq.models.running.reference import Reference
from mpq.records.sensitivity import layer_bytes, standard_error
from mpq.search.run import search
from mpq.tensors.quantizers.registry import quantizer_named

SCHEMES = {"4": parse_scheme("int4-g32"), "8": parse_scheme("int8")}
_WINDOWS, _TESTS = 16, 30


@dataclass(frozen=True)
class Allocation:
    """One comparison.

    Args:
        peer: whose plan it is.
        bits: per weight, everything included.
        theirs: its KL divergence on the test windows.
        ours: that of mpq's plan of no more bytes.
        stderr: standard error of the difference.
    """

    peer: str
    bits: float
    theirs: float
    ours: float
    stderr: float

    @property
    def ratio(self) -> float:
        """Their error over ours."""
        return self.theirs / self.ours

    @property
    def noise(self) -> float:
        """Their error less ours, in standard errors of the difference."""
        return (self.theirs - self.ours) / self.stderr if self.stderr else 0.0

    @property
    def line(self) -> str:
        """For the table."""
        return f"{self.peer:12} {self.bits:6.3f}  {self.theirs:.4f}  {self.ours:.4f}  {self.ratio:5.2f}  {self.noise:+.1f}"


def main() -> None:
    """Print the table, and the geometric mean of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, metavar="DIR", help="folder with stories15m/, text/ and the peers' plans")
    parser.add_argument("--work", type=Path, default=Path("peers-work"), metavar="FOLDER", help="for results [default: peers-work]")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    told = json.loads((options.models / "stories15m-peer-plans.json").read_text())
    plans = [(plan["peer"], dict(zip(told["layers"], plan["bits"], strict=True))) for plan in told["plans"]]
    setting = case("stories15m", options.models, encoder=None, samples=_WINDOWS, tests=_TESTS)
    found = []
    print(f"{'peer':12} {'bits':>6}  {'KL':>6}  {'mpq':>6}  {'ratio':>5}  difference in standard errors")
    for row in compared(setting, plans):
        found.append(row)
        print(row.line, flush=True)
    print(f"geometric mean of {len(found)} ratios: {mean_ratio(found):.3f}")
    (options.work / "allocation.json").write_text(json.dumps([asdict(row) for row in found]))


def mean_ratio(rows: Sequence[Allocation]) -> float:
    """The geometric mean of the ratios."""
    return math.exp(sum(math.log(row.ratio) for row in rows) / len(rows))


def compared(setting: Case, plans: Sequence[tuple[str, Mapping[str, str]]]) -> Iterator[Allocation]:
    """The rows, one for each plan of bits by layer name."""
    module, wanted = setting.model.module, plans[0][1]
    found = discover(module, setting.calibration.batches).layers
    layers, others = [layer for layer in found if layer.name in wanted], [layer.name for layer in found if layer.name not in wanted]
    table = analyze(
        setting.model,
        setting.calibration,
        candidates=[str(scheme) for scheme in SCHEMES.values()],
        method="fisher",
        quantizer="rtn",
        ignore=tuple(others),
    )
    variants = Variants(module, layers, quantizer_named("rtn"))
    reference = Reference(module, setting.test, setting.metric)

    def errors(schemes: Mapping[str, Scheme]) -> Tensor:
        weights = {name: variants.quantized(name, scheme) for name, scheme in schemes.items()}
        return reference.errors(as_parameters(weights, layers)).cpu()

    for peer, bits in plans:
        theirs = {name: SCHEMES[each] for name, each in bits.items()}
        size = layer_bytes(layers, theirs)
        ours = search(table, Budget(f"{size}B"), trials=0).plan.layers
        first, second = errors(theirs), errors(ours)
        weights = sum(layer.weights for layer in layers)
        away = standard_error((first - second).numpy())
        yield Allocation(peer, 8 * size / weights, float(first.mean()), float(second.mean()), away)


if __name__ == "__main__":
    main()
