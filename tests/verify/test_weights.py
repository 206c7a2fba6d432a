"""The kind of damage shows where undoing it gives the checksum of the fingerprint."""

from collections.abc import Callable

import pytest
import torch

from mpq.export.fingerprint import layer_facts
from mpq.export.stored.base import Held, values
from mpq.formats.scheme import parse_scheme
from mpq.records.fingerprint import Fingerprint
from mpq.tensors.quantized import QuantizedWeight
from mpq.verify.weights import weight_findings

Change = Callable[[QuantizedWeight], QuantizedWeight | None]


def weight(seed: int) -> QuantizedWeight:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 16, (4, 64), generator=generator, dtype=torch.uint8)
    return QuantizedWeight(parse_scheme("int4-g32"), (4, 64), codes, torch.rand(4, 2, generator=generator).half())


def with_scales(old: QuantizedWeight, scales: torch.Tensor) -> QuantizedWeight:
    return QuantizedWeight(old.scheme, old.matrix, old.codes, scales)


def with_codes(old: QuantizedWeight, codes: torch.Tensor) -> QuantizedWeight:
    return QuantizedWeight(old.scheme, old.matrix, codes, old.scales)


def scales(one: QuantizedWeight) -> torch.Tensor:
    assert one.scales is not None
    return one.scales


def fingerprint() -> Fingerprint:
    layers = {name: layer_facts(name, weight(seed), ("MatMul",)) for seed, name in enumerate(("first", "second"))}
    return Fingerprint(1, "onnx", 1e-3, [], [], layers, {"norm": "0" * 16})


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda w: w, None, ""),
        (lambda w: None, "layer missing", "'second' is not in the file, or is not loaded"),
        (lambda w: values(w.dequantize()), "unquantized", "the file holds floating-point values where it should hold int4-g32"),
        (lambda w: with_codes(w, w.codes.view(-1, 2).flip(1).reshape(4, 64)), "nibbles swapped", "the two codes of each byte"),
        (lambda w: with_codes(w, w.codes.view(-1, 2, 16).flip(1).reshape(4, 64)), "nibbles swapped", "the two codes of each byte"),
        (lambda w: with_codes(w, w.codes ^ 8), "sign", "signed but are unsigned"),
        (lambda w: with_codes(w, weight(0).codes), "codes of another layer", "its codes are those of 'first'"),
        (lambda w: with_codes(w, w.codes ^ 1), "codes", "its codes differ"),
        (lambda w: with_scales(w, scales(weight(0))), "scales swapped", "its scales are those of 'first'"),
        (lambda w: with_scales(w, scales(w).flip(0)), "scales swapped", "its scales are those of other rows"),
        (lambda w: with_scales(w, scales(w).flip(1)), "group order", "each row has its own scales in another order"),
        (lambda w: with_scales(w, scales(w) * 2), "scales", "its scales differ"),
        (
            lambda w: QuantizedWeight(parse_scheme("int4-g16"), w.matrix, w.codes, scales(w).repeat_interleave(2, 1)),
            "group size",
            "the scales are for int4-g16, but should be for int4-g32",
        ),
        (lambda w: QuantizedWeight(parse_scheme("int8-g32"), w.matrix, w.codes, w.scales), "bits", "are int8-g32, but should be int4-g32"),
    ],
)
def test_a_damage_has_its_kind(change: Change, kind: str | None, message: str) -> None:
    facts, changed = fingerprint(), change(weight(1))
    held = {"first": weight(0)} | ({} if changed is None else {"second": changed})
    uses = dict.fromkeys(held, ("MatMul",))
    facts.tensors = {}
    found = list(weight_findings(facts, Held(held, {}, uses)))
    assert [(each.kind, each.name) for each in found] == ([] if kind is None else [(kind, "second")])
    assert all(message in each.message for each in found)


def test_a_weight_that_fewer_operators_use_has_lost_a_tie() -> None:
    held = Held({"first": weight(0), "second": weight(1)}, {}, {"first": ("MatMul",), "second": ("Gather",)})
    facts = fingerprint()
    facts.tensors = {}
    (found,) = weight_findings(facts, held)
    assert (found.kind, found.name, found.message) == ("tie lost", "second", "the weight is used by Gather, but should be used by MatMul")


def test_other_tensors_are_missing_or_differ() -> None:
    layers = {"first": weight(0), "second": weight(1)}
    uses = dict.fromkeys(layers, ("MatMul",))
    (missing,) = weight_findings(fingerprint(), Held(layers, {}, uses))
    (other,) = weight_findings(fingerprint(), Held(layers, {"norm": torch.ones(3)}, uses))
    assert (missing.kind, missing.name) == ("tensor missing", "norm")
    assert (other.kind, other.name) == ("tensor", "norm")
