"""Compares an artifact, loaded by `mpq.load`, with the digests in its header.

The header has a digest of each layer's dequantized weights. A kind of damage is recognized if undoing it gives that digest. Outputs of the
packed kernels are compared with those of the same weights unpacked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mpq.data.checksums import digest
from mpq.errors import FormatError
from mpq.export.base import Options
from mpq.export.source import Source, open_source
from mpq.export.weights.compare import apart, half_of_the_digits, inputs_of
from mpq.models.layers.state_tensors import state_of
from mpq.models.running.forward import main_output
from mpq.records.artifact import ArtifactHeader
from mpq.records.layer import Layer
from mpq.records.stands_alone import stands_alone
from mpq.runtime.digests import rest_digest
from mpq.runtime.load import load
from mpq.shown import first_line
from mpq.tensors.matrix import to_matrix
from mpq.tensors.quantized import QuantizedWeight
from mpq.verify.findings import Finding, OutputDifference, Verification
from mpq.verify.weights import swapped_halves

LABEL = f"torch {torch.__version__}"


def judge_artifact(path: Path) -> Verification:
    """The differences between an artifact's fingerprint, its tensors, and the model from `mpq.load`.

    Raises:
        FormatError: if it has no fingerprint, or cannot be read.
    """
    source = open_source(path)
    header = source.artifact
    if not header.digests:
        raise FormatError(f"{path} has no fingerprint (made with --no-fingerprint, in shards, or by an earlier mpq): run `mpq apply` again")
    weights = dict(source.weights())
    findings = list(_weights(header, weights))
    if rest_digest(source.rest())[: len(header.digests[-1])] != header.digests[-1]:
        findings.append(Finding("tensor", "unquantized tensors", "the values of at least one differ"))
    outputs: list[OutputDifference] = []
    notes = ["its model is not in the file, so it was not run: verify an export to compare outputs"]
    if stands_alone(header, path):
        module, notes = load(path, activations=False), []
        findings += _loaded(header, weights, module)
        outputs, wrong = _packed(source, module, load(path, packed=True, activations=False))
        findings += wrong
    return Verification(str(path), LABEL, tuple(findings), tuple(outputs), len(weights), len(source.rest()), tuple(notes))


def _weights(header: ArtifactHeader, weights: Mapping[str, QuantizedWeight]) -> Iterator[Finding]:
    for layer, wanted in zip(header.layers, header.digests, strict=False):
        weight = weights[layer.name]
        if _digest(weight, wanted) != wanted:
            yield next((found for found in _kinds(layer, weight, weights, wanted)), Finding("weights", layer.name, "its weights differ"))


def _kinds(layer: Layer, weight: QuantizedWeight, weights: Mapping[str, QuantizedWeight], wanted: bytes) -> Iterator[Finding]:
    """The kinds of damage that give the right weights when undone."""
    if weight.scales is None:
        return
    if _digest(replace(weight, codes=swapped_halves(weight.codes)), wanted) == wanted:
        yield Finding("nibbles swapped", layer.name, "the two codes of each byte are in the wrong order")
    if _digest(replace(weight, codes=weight.codes ^ 2 ** (weight.scheme.bits - 1)), wanted) == wanted:
        yield Finding("sign", layer.name, "its codes are signed but should be unsigned, or the reverse")
    if _digest(replace(weight, scales=weight.scales.flip(1)), wanted) == wanted:
        yield Finding("group order", layer.name, "each row has its own scales in the reverse order")
    if any(_digest(replace(weight, scales=weight.scales.roll(step, 0)), wanted) == wanted for step in (1, -1)):
        yield Finding("scales swapped", layer.name, "its scales are those of the next row")
    alike = [name for name, other in weights.items() if name != layer.name and _alike(other, weight)]
    for name in alike:
        if _digest(replace(weight, scales=weights[name].scales), wanted) == wanted:
            yield Finding("scales swapped", layer.name, f"its scales are swapped with those of '{name}'")


def _alike(other: QuantizedWeight, weight: QuantizedWeight) -> bool:
    """Whether the scales of one layer could belong to the other."""
    return other.scales is not None and weight.scales is not None and other.scales.shape == weight.scales.shape


def _digest(weight: QuantizedWeight, like: bytes) -> bytes:
    return digest(weight.dequantize(), size=len(like))


def _loaded(header: ArtifactHeader, weights: Mapping[str, QuantizedWeight], module: nn.Module) -> Iterator[Finding]:
    """Layers whose weights in the loaded module differ from the file."""
    state = state_of(module)
    for layer in header.layers:
        tensor = state[layer.parameters[0]].detach()
        if not torch.equal(to_matrix(tensor, layer.axes), weights[layer.name].dequantize().to(tensor.dtype).float()):
            yield Finding("weights", layer.name, "the loaded model has different weights than the file")


def _packed(source: Source, module: nn.Module, packed: nn.Module) -> tuple[list[OutputDifference], list[Finding]]:
    """Compares the outputs of packed kernels with those of the unpacked weights."""
    try:
        call = inputs_of(module, source, Options())
        wanted, found = (_main(each, call) for each in (module, packed))
    except Exception as error:  # any error, depending on the model
        return [], [Finding("load", "the model", f"it does not run ({first_line(error)})")]
    tolerance, share = half_of_the_digits(source), apart(wanted.double(), found.double())
    difference = OutputDifference("output", share, tolerance)
    if share <= tolerance:
        return [difference], []
    return [difference], [
        Finding("outputs", "output", f"packed kernels differ by {share:.2g} of its largest value, more than {tolerance:.2g}")
    ]


def _main(module: nn.Module, call: Any) -> Tensor:
    with torch.no_grad():
        found = main_output(module(*call.args, **call.kwargs))[1]
    tensor: Tensor = found[0] if isinstance(found, (tuple, list)) else found
    return tensor
