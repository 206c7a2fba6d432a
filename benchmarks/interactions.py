"""Whole plans of few bits, predicted by fisher's table: by the sum of single layers, and with interactions.

    python -m benchmarks.interactions --models DIR [--only stories260k stories15m resnet20] [--candidates 2..8,16] [--bits 3 3.5 4]

Plans are such as a search compares: the best ones of a size after each layer's errors are multiplied by a random factor. They are measured
on the samples that the table was made on, since the question is what the table says of them, and nothing is chosen here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mpq
from benchmarks.analyze import cases
from mpq.analyze.selfcheck import random_plans
from mpq.evidence.prediction import Quality, additive, interactions, quality
from mpq.records.sensitivity import Sensitivity

NOISE = 0.01  # of a rank correlation


def shares(table: Sensitivity, bits: list[float]) -> list[float]:
    """How far these bits per weight lie from the smallest to the largest plan; what is smaller than the smallest is left out."""
    weights = sum(layer.weights for layer in table.layers)
    sizes = [[s.stored_bits(layer.matrix) for s in table.header.candidates[layer.name]] for layer in table.layers]
    low, high = (sum(edge(each) for each in sizes) / weights for edge in (min, max))
    return [(each - low) / (high - low) for each in bits if each > low]


def told(found: Quality) -> str:
    return f"rank {found.rank:.3f} bias {found.bias:+.3f} spread {found.spread:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=["stories260k", "stories15m", "resnet20"])
    parser.add_argument("--candidates", default="2..8,16")
    parser.add_argument("--bits", type=float, nargs="+", default=[3.0, 3.5, 4.0])
    parser.add_argument("--plans", type=int, default=24)
    parser.add_argument("--samples", type=int, help="[default: 128, of stories15m 16]")
    options = parser.parse_args()
    for only in options.only:
        samples = options.samples or (16 if only == "stories15m" else 128)
        for name, model, data in cases(options.models, [only], samples):
            table = mpq.analyze(model, data, method="fisher", candidates=(options.candidates,), quantizer="rtn")
            plans = list(random_plans(table, seed=1, count=options.plans, shares=shares(table, options.bits)))
            measurer = mpq.PlanMeasurer(model, data, table)
            measured = [float(measurer.calibration(plan).mean()) for plan in plans]
            alone = quality([additive(table, plan) for plan in plans], measured)
            together = quality([value for plan in plans if (value := interactions(table, plan)) is not None], measured)
            verdict = "yes" if together.rank >= alone.rank - NOISE else "NO"
            print(
                f"{name}, {len(plans)} plans of {min(options.bits):g} to {max(options.bits):g} bits: additive {told(alone)}; "
                f"with interactions {told(together)} (at least as good in rank: {verdict})",
                flush=True,
            )


if __name__ == "__main__":
    main()
