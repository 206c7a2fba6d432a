"""Compares the outputs of a program with those of the artifact, and finds the first layer that differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from mpq.export.fingerprint import kept_values
from mpq.records.fingerprint import Fingerprint, OutputFacts
from mpq.verify.findings import Finding, OutputDifference


def output_differences(fingerprint: Fingerprint, outputs: Sequence[Tensor]) -> Iterator[tuple[OutputDifference, Finding | None]]:
    """Compares each output of the fingerprint with the program's; the differences and the findings."""
    if len(outputs) != len(fingerprint.outputs):
        text = f"the program gives {len(outputs)} outputs, but should give {len(fingerprint.outputs)}"
        yield OutputDifference("outputs", None, fingerprint.tolerance), Finding("outputs", "outputs", text)
        return
    for facts, output in zip(fingerprint.outputs, outputs, strict=True):
        yield _compared(facts, output, fingerprint.tolerance)


def _compared(facts: OutputFacts, output: Tensor, tolerance: float) -> tuple[OutputDifference, Finding | None]:
    if list(output.shape) != facts.shape:
        text = f"it has shape {list(output.shape)}, but should have {facts.shape}"
        return OutputDifference(facts.name, None, tolerance), Finding("outputs", facts.name, text)
    pairs = list(zip(facts.values, kept_values(output), strict=True))
    if any((wanted is None) != (found is None) for wanted, found in pairs):
        text = "values that should be finite are not, or the reverse"
        return OutputDifference(facts.name, None, tolerance), Finding("outputs", facts.name, text)
    apart = max((abs(wanted - found) for wanted, found in pairs if wanted is not None and found is not None), default=0.0)
    share = apart / (facts.largest or 1.0)
    difference = OutputDifference(facts.name, share, tolerance)
    if share <= tolerance:
        return difference, None
    text = f"it differs by {share:.2g} of its largest value, more than the program's arithmetic explains ({tolerance:.2g})"
    return difference, Finding("outputs", facts.name, text)


def first_layer(fingerprint: Fingerprint, given: Mapping[str, tuple[float, float]]) -> Finding | None:
    """The first layer whose output has other magnitudes than in the artifact."""
    for name, facts in fingerprint.layers.items():
        if facts.output is None or name not in given:
            continue
        shares = [abs(found - wanted) / (facts.output[1] or 1.0) for found, wanted in zip(given[name], facts.output, strict=True)]
        if not max(shares) <= fingerprint.tolerance:
            text = f"the first layer whose output differs, by {max(shares):.2g} of its largest value"
            return Finding("layer output", name, text)
    return None
