"""Compares a loaded export with its fingerprint, in an order such that earlier differences explain later ones."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from msgspec import structs

from mpq.data.fixed_inputs import FixedInput
from mpq.records.fingerprint import Fingerprint
from mpq.shown import first_line
from mpq.tensors.quantized import QuantizedWeight
from mpq.verify.findings import Finding, OutputDifference, Verification
from mpq.verify.outputs import first_layer, output_differences
from mpq.verify.programs.base import Loaded
from mpq.verify.weights import weight_findings

_ROUNDINGS = 4  # rounding of one product in the dtype of the weights


def judge(file: str, program: str, fingerprint: Fingerprint, loaded: Loaded) -> Verification:
    """The differences: stored weights first, then the weights that the program computes from codes, then outputs."""
    held = loaded.held
    findings = [] if held is None else list(weight_findings(fingerprint, held))
    findings += [finding for finding in loaded.findings if finding.name not in {known.name for known in findings}]
    differences, wrong = _outputs(fingerprint, loaded)
    damaged = {finding.name for finding in findings}
    if held is not None:
        findings += [each for each in _used(fingerprint, loaded) if each.name not in damaged]
    if wrong and not findings:
        findings += _first_layer(fingerprint, loaded)
    notes = [*loaded.notes, *([] if fingerprint.inputs else ["outputs are not compared: the fingerprint has no inputs for this program"])]
    return Verification(
        file,
        program,
        (*findings, *wrong),
        tuple(differences),
        0 if held is None else sum(facts.weights is not None for facts in fingerprint.layers.values()),
        0 if held is None else len(fingerprint.tensors),
        tuple(notes),
    )


def _inputs(fingerprint: Fingerprint) -> list[torch.Tensor]:
    return [
        FixedInput(tuple(each.shape), each.dtype, each.below, each.value).tensor(number) for number, each in enumerate(fingerprint.inputs)
    ]


def _outputs(fingerprint: Fingerprint, loaded: Loaded) -> tuple[list[OutputDifference], list[Finding]]:
    if not fingerprint.inputs:
        return [], []
    try:
        allowed = structs.replace(fingerprint, tolerance=max(fingerprint.tolerance, loaded.tolerance))
        found = list(output_differences(allowed, loaded.run(_inputs(fingerprint))))
    except Exception as error:  # the program has its own errors
        return [], [Finding("load", "the model", f"the program cannot run it ({first_line(error)})")]
    return [difference for difference, _ in found], [finding for _, finding in found if finding is not None]


def _used(fingerprint: Fingerprint, loaded: Loaded) -> Iterator[Finding]:
    """Layers for which the program's weights differ from their codes and scales."""
    assert loaded.held is not None
    for name, facts in fingerprint.layers.items():
        weight = loaded.held.weights.get(facts.place)
        if weight is not None and weight.scales is not None and (text := _made(weight, loaded, facts.place)):
            yield Finding("weights", name, text)


def _made(weight: QuantizedWeight, loaded: Loaded, place: str) -> str | None:
    try:
        made = loaded.used(place)
    except Exception as error:  # the program has its own errors
        return f"the program cannot unpack its weights ({first_line(error)})"
    if made is None:
        return None
    wanted = weight.dequantize()
    if made.shape != wanted.shape:
        return f"the program computes weights of shape {list(made.shape)} from its codes, but should compute {list(wanted.shape)}"
    apart, largest = float((made.double() - wanted.double()).abs().max()), float(wanted.abs().max())
    if apart <= _ROUNDINGS * torch.finfo(made.dtype).eps * largest:
        return None
    return f"codes and scales are right, but the program computes different weights from them: {apart / largest:.2g} of the largest apart"


def _first_layer(fingerprint: Fingerprint, loaded: Loaded) -> list[Finding]:
    try:
        by_place = loaded.layer_outputs(_inputs(fingerprint))
    except Exception:  # the outputs of the model differ, but the layer cannot be determined
        return []
    given = {name: by_place[facts.place] for name, facts in fingerprint.layers.items() if facts.place in by_place}
    found = first_layer(fingerprint, given)
    return [] if found is None else [found]
