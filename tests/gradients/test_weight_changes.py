"""By how much each scheme would move a layer's weight."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mpq.formats.scheme import Scheme
from mpq.gradients import weight_changes
from mpq.gradients.weight_changes import Changes
from mpq.models.layers.discover import discover
from mpq.models.memory.offload import Offload
from mpq.models.running.fake_quantized import Variants
from mpq.tensors.matrix import to_matrix
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.registry import quantizer_named
from tests.models.small import data, inputs, mlp, up_and_down
from tests.small import schemes

INT2, INT4, INT8, FP16 = schemes("int2", "int4", "int8", "fp16")


def made(*, zero: bool = False, offload: Offload | None = None) -> tuple[Changes, Variants]:
    module = mlp()
    variants = Variants(module, discover(module, data(8).batches).layers, quantizer_named("rtn"), offload=offload)

    def origin(name: str) -> Tensor:
        weight = module.get_parameter(variants.layers[name].parameters[0])
        return torch.zeros_like(weight) if zero else weight

    return Changes(variants, {"0": (INT2, INT4), "3": (INT8,)}, origin), variants


def test_changes_are_those_from_the_origin_to_each_scheme() -> None:
    changes, variants = made()
    found = changes.of(variants.layers["0"])
    assert (found.shape, found.dtype) == ((2, 16, 8), torch.float32)
    for row, scheme in zip(found, (INT2, INT4), strict=True):
        expected = variants.weight("0", scheme) - variants.module.get_parameter("0.weight").detach()
        assert torch.equal(row, expected.bfloat16().float())


def test_changes_may_be_counted_from_another_weight() -> None:
    changes, variants = made(zero=True)
    assert torch.equal(changes.of(variants.layers["3"])[0], variants.weight("3", INT8).bfloat16().float())


def test_products_are_inner_products_with_a_gradient_in_the_shape_of_the_weight() -> None:
    changes, variants = made()
    gradient = inputs(16, 8, seed=3)
    expected = [float((change * gradient).sum()) for change in changes.of(variants.layers["0"])]
    assert changes.products(variants.layers["0"], gradient) == pytest.approx(expected, rel=1e-5)


def test_a_weight_with_its_outputs_on_another_axis_is_laid_out_as_its_matrix() -> None:
    module = up_and_down()
    variants = Variants(module, discover(module, data(4, 2, 6, 6).batches).layers, quantizer_named("rtn"))
    up = variants.layers["up"]
    changes = Changes(variants, {"up": (INT4,)}, lambda name: module.get_parameter(f"{name}.weight"))
    expected = to_matrix(variants.weight("up", INT4) - module.get_parameter("up.weight").detach(), up.axes, up.groups)
    assert torch.equal(changes.of(up)[0], expected.bfloat16().float())
    gradient = inputs(*up.shape, seed=3)
    assert changes.products(up, gradient) == pytest.approx(
        [float((expected.bfloat16().float() * to_matrix(gradient, up.axes, up.groups)).sum())], rel=1e-5
    )


@pytest.mark.parametrize(
    ("limit", "kept"), [(2 * 16 * 8 - 1, []), (2 * 16 * 8, [INT2]), (2 * 2 * 16 * 8, [INT2, INT4]), (1 << 20, [INT2, INT4, INT8])]
)
def test_changes_are_kept_while_memory_allows(monkeypatch: pytest.MonkeyPatch, limit: int, kept: list[Scheme]) -> None:
    monkeypatch.setattr(weight_changes, "CACHE_BYTES", limit)
    changes, variants = made()
    first = [changes.of(variants.layers[name]) for name in ("0", "3")]
    assert [scheme for _, scheme in changes._kept] == kept
    assert all(torch.equal(changes.of(variants.layers[name]), one) for name, one in zip(("0", "3"), first, strict=True))


@pytest.mark.parametrize(("limit", "kept"), [(2 * 16 * 8, [INT2]), (1 << 30, [INT2, INT4, INT8])])
def test_offloaded_no_more_changes_are_kept_than_other_tensors(limit: int, kept: list[Scheme], tmp_path: Path) -> None:
    changes, variants = made(offload=Offload(tmp_path, limit=limit))
    for name in ("0", "3"):
        changes.of(variants.layers[name])
    assert [scheme for _, scheme in changes._kept] == kept


@pytest.mark.parametrize("limit", [0, 2 * 16 * 8, 1 << 20])
@pytest.mark.parametrize(("values", "sizes"), [(1, [1] * 16), (2 * 7 * 8, [7, 7, 2]), (2 * 16 * 8, [16])])
def test_pieces_hold_as_many_rows_as_fit(monkeypatch: pytest.MonkeyPatch, values: int, sizes: list[int], limit: int) -> None:
    expected = made()[0].of(made()[1].layers["0"])
    monkeypatch.setattr(weight_changes, "_PIECE_VALUES", values)
    monkeypatch.setattr(weight_changes, "CACHE_BYTES", limit)
    changes, variants = made()
    pieces = list(changes.pieces(variants.layers["0"]))
    assert [(rows.stop - rows.start, piece.shape) for rows, piece in pieces] == [(size, (2, size, 8)) for size in sizes]
    assert torch.equal(torch.cat([piece for _, piece in pieces], 1), expected)


def test_each_weight_is_made_of_its_codes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_changes, "_PIECE_VALUES", 1)
    monkeypatch.setattr(weight_changes, "CACHE_BYTES", 2 * 16 * 8)
    (changes, variants), asked = made(), list[Scheme]()
    quantized = variants.quantized

    def counted(name: str, scheme: Scheme) -> QuantizedWeight:
        asked.append(scheme)
        return quantized(name, scheme)

    monkeypatch.setattr(variants, "quantized", counted)
    for _ in range(2):
        list(changes.pieces(variants.layers["0"]))
    assert asked == [INT2, INT4, INT4]  # int2 is kept


def test_changes_that_were_made_beforehand_do_not_follow_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_changes, "CACHE_BYTES", 0)
    module = mlp()
    variants = Variants(module, discover(module, data(8).batches).layers, quantizer_named("rtn"))
    changes = Changes(variants, {"0": (INT2, FP16)}, lambda name: variants.weight(name, INT8))
    before = changes.of(variants.layers["0"])
    changes.fill()
    module.get_parameter("0.weight").data.zero_()
    assert torch.equal(changes.of(variants.layers["0"]), before)
