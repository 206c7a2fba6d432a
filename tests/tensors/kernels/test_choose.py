"""Layouts and kernels go by format, device, dtype and number of rows; the product is right whatever is chosen."""

import pytest
import torch

from mpq.formats.scheme import parse_scheme
from mpq.tensors.kernels import bags, choose, int4pack, int8pack
from mpq.tensors.kernels.codes import Codes
from tests.tensors.kernels.making import as_stored, close, inputs, needs_bags, some_rows, weight

F32, BF16 = torch.float32, torch.bfloat16
LAYOUTS = [
    pytest.param("int4-g32", "stored"),
    pytest.param("nf4-g32", "stored"),
    pytest.param("int4-asym-g32", "bags", marks=needs_bags),
    pytest.param("int3", "bags", marks=needs_bags),
    pytest.param("int4-g32", "int4pack", marks=pytest.mark.skipif(not int4pack.available(), reason="this CPU has no AVX512")),
    pytest.param("int8", "int8pack", marks=pytest.mark.skipif(not int8pack.available(), reason="this CPU has no AVX512")),
]


def laid_out(scheme: str, layout: str) -> Codes:
    return choose.in_layout(as_stored(weight(scheme, (64, 96))), layout)


@needs_bags
def test_the_kernel_goes_by_format_dtype_and_rows() -> None:
    scheme, matrix = parse_scheme("int5"), (64, 96)
    assert choose.kernel_for(scheme, "bags", 1).name == "bags8"
    assert choose.kernel_for(scheme, "bags", 1000).name == "blocks"
    assert choose.kernel_for(scheme, "int8pack", 8, BF16).name == "int8pack"
    assert choose.kernel_for(scheme, "int8pack", 1000, BF16).name == "blocks"
    assert choose.kernel_for(parse_scheme("nf4"), choose.layout_for(parse_scheme("nf4"), matrix, 2, F32), 1).name == "rows"
    assert choose.layout_for(scheme, matrix, 2, F32, "cuda") == "stored"
    assert choose.layout_for(scheme, matrix, 2, F32) == "bags"
    assert choose.layout_for(scheme, matrix, 2, BF16) == ("int8pack" if int8pack.available() else "bags")
    assert choose.layout_for(scheme, matrix, 4, BF16) == "bags"
    assert choose.layout_for(scheme, matrix, 1, F32) == "stored"  # a vector is never multiplied


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("dtype", [F32, BF16])
@needs_bags
def test_bags_serve_up_to_the_number_of_rows_where_blocks_are_faster(bits: int, dtype: torch.dtype) -> None:
    scheme, most = parse_scheme(f"int{bits}"), choose.few(bits, dtype)
    assert choose.kernel_for(scheme, "bags", most, dtype).name == f"bags{bits}"
    assert choose.kernel_for(scheme, "bags", most + 1, dtype).name == "blocks"


def test_a_tensor_that_is_not_packed_is_plain_and_each_kernel_gives_a_reason() -> None:
    assert choose.kernel_for(parse_scheme("bf16"), "plain", 1) == ("plain", "stored in the dtype of the model: an ordinary tensor")
    assert choose.kernel_for(parse_scheme("nf4"), "stored", 1).reason.startswith("no packed kernel for this format")


@pytest.mark.parametrize(
    ("scheme", "dtype", "plain"),
    [
        ("fp16", BF16, True),
        ("bf16", BF16, True),
        ("bf16", F32, False),
        ("fp32", F32, True),
        ("int8", BF16, False),
        ("fp8-e4m3", F32, False),
    ],
)
def test_weights_stored_in_floating_point_no_smaller_than_the_model_are_plain(scheme: str, dtype: torch.dtype, plain: bool) -> None:
    assert choose.is_plain(parse_scheme(scheme), dtype) is plain


@pytest.mark.parametrize(("scheme", "layout"), LAYOUTS)
@pytest.mark.parametrize("samples", [1, 3, 60])
def test_every_layout_gives_the_product_in_the_dtype_of_its_input(scheme: str, layout: str, samples: int) -> None:
    codes, dense, x = laid_out(scheme, layout), weight(scheme, (64, 96)).dequantize(), inputs(samples, 96)
    exact = x @ dense.t()
    for dtype in (F32, torch.float16, BF16):
        found = choose.product(x.to(dtype), codes)
        assert found.dtype == dtype
        assert (found.float() - exact).abs().max() <= (1e-5 if dtype == F32 else torch.finfo(dtype).eps * 8) * exact.abs().max()


@pytest.mark.parametrize(("scheme", "layout"), LAYOUTS)
def test_inputs_of_any_rank_become_rows_and_none_gives_none(scheme: str, layout: str) -> None:
    codes, x = laid_out(scheme, layout), inputs(6, 96)
    expected = choose.product(x, codes)
    assert close(choose.product(x.view(2, 3, 96), codes), expected)
    assert close(choose.product(x[0], codes), expected[:1])
    assert choose.product(x[:0], codes).shape == (0, 64)


@pytest.mark.parametrize(("scheme", "layout"), LAYOUTS)
def test_every_layout_goes_back_to_stored_codes_and_gives_rows(scheme: str, layout: str) -> None:
    stored, codes, dense = as_stored(weight(scheme, (64, 96))), laid_out(scheme, layout), weight(scheme, (64, 96)).dequantize()
    assert choose.in_layout(codes, layout) is codes
    back = choose.in_layout(codes, "stored")
    assert torch.equal(back.codes, stored.codes)
    assert torch.equal(choose.dequantize(codes), dense)
    assert torch.equal(choose.rows_of(codes, some_rows(64)), dense[some_rows(64)])


@needs_bags
def test_the_best_layout_is_the_one_that_is_chosen() -> None:
    codes = as_stored(weight("int5", (64, 96)))
    assert choose.best_layout(codes, 2, F32).layout == "bags"
    assert choose.best_layout(codes, 1, F32) is codes
    between = choose.in_layout(bags.packed_of(codes), choose.layout_for(codes.scheme, codes.matrix, 2, BF16))
    assert torch.equal(choose.dequantize(between), choose.dequantize(codes))
