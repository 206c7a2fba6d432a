"""Finds the layers and tensors that differ from the fingerprint, and how.

The fingerprint has only checksums. A kind of damage is recognized if undoing it gives the right checksum: halves of bytes swapped back,
codes shifted by their middle, scales sorted in each row or over all rows; or if it is the checksum of another layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from mpq.data.checksums import checksum
from mpq.export.fingerprint import layer_facts
from mpq.export.gguf_blocks import BLOCK
from mpq.export.stored.base import Held
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.records.fingerprint import Fingerprint, LayerFingerprint
from mpq.tensors.quantized import QuantizedWeight
from mpq.verify.findings import Finding


def weight_findings(fingerprint: Fingerprint, held: Held) -> Iterator[Finding]:
    """The layers that differ, in model order, then the other tensors."""
    for name, facts in fingerprint.layers.items():
        if facts.weights is not None:
            yield from _layer(name, facts, fingerprint, held)
    yield from _tensors(fingerprint.tensors, held.tensors)


def _layer(name: str, facts: LayerFingerprint, fingerprint: Fingerprint, held: Held) -> Iterator[Finding]:
    weight, wanted = held.weights.get(facts.place), parse_scheme(facts.scheme)
    if weight is None:
        yield _absent(name, facts, fingerprint, held)
        return
    if weight.scheme.is_float and not wanted.is_float:
        yield Finding("unquantized", name, f"the file holds floating-point values where it should hold {wanted}")
    elif (other := _other_scheme(name, weight, facts, wanted)) is not None:
        yield other
    else:
        found = layer_facts(facts.place, weight, ())
        yield from _codes(name, weight, found, facts, fingerprint.layers)
    uses = list(held.uses.get(facts.place, ()))
    if uses != facts.uses:
        yield Finding("tie lost", name, f"the weight is used by {_listed(uses)}, but should be used by {_listed(facts.uses)}")


def _absent(name: str, facts: LayerFingerprint, fingerprint: Fingerprint, held: Held) -> Finding:
    """A layer whose place is empty: stored as values under another name, or missing."""
    size = facts.matrix[0] * facts.matrix[1]
    new = [tensor for key, tensor in held.tensors.items() if key not in fingerprint.tensors]
    if any(tensor.numel() == size for tensor in new):
        return Finding("unquantized", name, f"the file holds floating-point values where it should hold {facts.scheme}")
    return Finding("layer missing", name, f"'{facts.place}' is not in the file, or is not loaded")


def _other_scheme(name: str, weight: QuantizedWeight, facts: LayerFingerprint, wanted: Scheme) -> Finding | None:
    if list(weight.matrix) != facts.matrix:
        return Finding("shape", name, f"the weight is {list(weight.matrix)}, but should be {facts.matrix}")
    found = weight.scheme
    if (found.format, found.symmetric) != (wanted.format, wanted.symmetric):
        return Finding("bits", name, f"the codes are {found}, but should be {wanted}")
    if weight.scales is None:
        return None
    if found.group_size != wanted.group_size or weight.scales.shape[1] != found.groups(weight.matrix[1]):
        return Finding("group size", name, f"the scales are for {found}, but should be for {wanted}")
    return None


def _codes(
    name: str, weight: QuantizedWeight, found: LayerFingerprint, facts: LayerFingerprint, layers: Mapping[str, LayerFingerprint]
) -> Iterator[Finding]:
    if facts.codes is None or weight.scales is None:
        if found.weights != facts.weights:
            yield Finding("weights", name, "its values differ")
        return
    if found.codes != facts.codes:
        yield _wrong_codes(name, weight, found, facts, layers)
    if found.scales != facts.scales:
        yield _wrong_scales(name, found, facts, layers)
    if found.zero_points != facts.zero_points:
        yield Finding("zero points", name, "its zero points differ")


def _wrong_codes(
    name: str, weight: QuantizedWeight, found: LayerFingerprint, facts: LayerFingerprint, layers: Mapping[str, LayerFingerprint]
) -> Finding:
    for swapped in (swapped_halves(weight.codes), *swapped_in_blocks(weight.codes)):
        if checksum(swapped) == facts.codes:
            return Finding("nibbles swapped", name, "the two codes of each byte are read in the wrong order")
    if checksum(weight.codes ^ 2 ** (weight.scheme.bits - 1)) == facts.codes:
        return Finding("sign", name, "its codes are read as signed but are unsigned, or the reverse")
    other = _owner(found.codes, name, layers, "codes")
    if other is not None:
        return Finding("codes of another layer", name, f"its codes are those of '{other}'")
    return Finding("codes", name, "its codes differ")


def _wrong_scales(name: str, found: LayerFingerprint, facts: LayerFingerprint, layers: Mapping[str, LayerFingerprint]) -> Finding:
    other = _owner(found.scales, name, layers, "scales")
    if other is not None:
        return Finding("scales swapped", name, f"its scales are those of '{other}'")
    if found.row_scales == facts.row_scales:
        return Finding("group order", name, "each row has its own scales in another order")
    if found.all_scales == facts.all_scales:
        return Finding("scales swapped", name, "its scales are those of other rows")
    return Finding("scales", name, "its scales differ")


def _owner(digest: str | None, name: str, layers: Mapping[str, LayerFingerprint], part: str) -> str | None:
    return next((other for other, facts in layers.items() if other != name and getattr(facts, part) == digest), None)


def swapped_halves(codes: Tensor) -> Tensor:
    """The codes with the two of each byte swapped; a last one without a neighbor stays."""
    flat, whole = codes.reshape(-1).clone(), codes.numel() // 2 * 2
    flat[:whole] = flat[:whole].view(-1, 2).flip(1).reshape(-1)
    return flat.view(codes.shape)


def swapped_in_blocks(codes: Tensor) -> Iterator[Tensor]:
    """The codes with the halves of each block of 32 swapped, as a GGUF file pairs them in bytes; nothing if they do not fill blocks."""
    if codes.numel() % BLOCK == 0:
        yield codes.reshape(-1, 2, BLOCK // 2).flip(1).reshape(codes.shape)


def _tensors(wanted: Mapping[str, str], held: Mapping[str, Tensor]) -> Iterator[Finding]:
    for name, digest in wanted.items():
        if name not in held:
            yield Finding("tensor missing", name, "it is not in the file, or is not loaded")
        elif checksum(held[name]) != digest:
            yield Finding("tensor", name, "its values differ")


def _listed(uses: list[str]) -> str:
    return ", ".join(uses) if uses else "nothing"
