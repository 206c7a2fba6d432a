"""The vectors of a product, times the rows of the weight, are its outputs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from mpq.calibration import operands
from mpq.calibration.operands import Product, each, product
from mpq.models.layers.operator_roles import role


def seeded(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def found(operation: str, argument: str, weight: Tensor, /, **arguments: Any) -> Product | None:
    return product(operation, argument, role(operation, argument, dims=weight.dim(), arguments=arguments), weight, arguments)


def outputs(made: Product | None, weight: Tensor) -> Tensor:
    """Every output of the product, in one row per output of a vector, from the vectors alone."""
    assert made is not None
    rows = weight.permute(*made.free, *made.reduced).reshape(-1, int(torch.tensor([weight.shape[dim] for dim in made.reduced]).prod()))
    parts = rows.reshape(made.groups, -1, rows.shape[1])
    blocks: dict[int, list[Tensor]] = {}
    for group, vectors in made.vectors():
        for offset, one in enumerate(vectors):
            number = offset if group is None else group
            blocks.setdefault(number, []).append(parts[number] @ one.reshape(-1, rows.shape[1]).T)
    return torch.cat([torch.cat(pieces, 1).flatten() for _, pieces in sorted(blocks.items())])


A, B, BATCH = seeded(5, 8), seeded(8, 6), seeded(3, 5, 8)
EXPERTS = seeded(3, 8, 6)
CASES: dict[str, tuple[str, str, Tensor, dict[str, Any], Tensor]] = {
    "mm, weight on the right": ("mm", "mat2", B, {"self": A}, (A @ B).T),
    "mm, weight on the left": ("mm", "self", A, {"mat2": B}, A @ B),
    "mv": ("mv", "self", A, {"vec": B[:, 0]}, A @ B[:, 0]),
    "addmv": ("addmv", "mat", A, {"self": seeded(5), "vec": B[:, 0]}, A @ B[:, 0]),
    "addmm": ("addmm", "mat2", B, {"self": seeded(6), "mat1": A}, (A @ B).T),
    "addmm, weight on the left": ("addmm", "mat1", A, {"self": seeded(6), "mat2": B}, A @ B),
    "linear": ("linear", "weight", B.T, {"input": BATCH}, (BATCH @ B).flatten(0, 1).T),
    "linear on a vector": ("linear", "weight", B.T, {"input": A[0]}, A[0] @ B),
    "linear, weight as the input": ("linear", "input", A, {"weight": B.T}, A @ B),
    "bmm": ("bmm", "mat2", EXPERTS, {"self": BATCH}, torch.bmm(BATCH, EXPERTS).mT),
    "bmm, weight on the left": ("bmm", "self", BATCH, {"mat2": EXPERTS}, torch.bmm(BATCH, EXPERTS)),
    "baddbmm": ("baddbmm", "batch2", EXPERTS, {"self": seeded(1), "batch1": BATCH}, torch.bmm(BATCH, EXPERTS).mT),
    "one matrix for a batch": ("bmm", "mat2", B.expand(3, -1, -1), {"self": BATCH}, (BATCH @ B).flatten(0, 1).T),
}


@pytest.mark.parametrize("case", CASES)
def test_a_matrix_product_gives_its_other_operand(case: str) -> None:
    operation, argument, weight, arguments, expected = CASES[case]
    made = found(operation, argument, weight, **arguments)
    rows = weight[0] if case == "one matrix for a batch" else weight
    if made is not None and rows is not weight:
        made = made._replace(free=tuple(dim - 1 for dim in made.free), reduced=tuple(dim - 1 for dim in made.reduced))
    torch.testing.assert_close(outputs(made, rows), expected.flatten())


@pytest.mark.parametrize("ends", [[4, 10], [0, 10], [10, 10], [3, 7]])
def test_a_grouped_product_gives_each_expert_its_own_rows(ends: list[int]) -> None:
    vectors, weight = seeded(10, 8), seeded(2, 8, 6)
    made = found("_grouped_mm", "mat2", weight, **{"self": vectors, "offs": torch.tensor(ends, dtype=torch.int32)})
    starts = [0, ends[0]]
    expected = [(vectors[start:end] @ weight[expert]).T.flatten() for expert, (start, end) in enumerate(zip(starts, ends, strict=True))]
    torch.testing.assert_close(outputs(made, weight), torch.cat(expected))


@pytest.mark.parametrize(
    ("operation", "argument", "weight", "arguments"),
    [
        ("add", "self", A, {"other": A}),
        ("mm", "mat2", B, {"self": A.long()}),
        ("mm", "mat2", B, {}),
        ("embedding", "weight", B, {"indices": torch.tensor([1])}),
        ("_grouped_mm", "mat2", EXPERTS, {"self": BATCH, "offs": torch.tensor([5])}),
        ("convolution", "weight", seeded(4, 2, 3), {"input": seeded(2, 9)}),
    ],
)
def test_vectors_that_are_not_known_are_none(operation: str, argument: str, weight: Tensor, arguments: dict[str, Any]) -> None:
    assert found(operation, argument, weight, **arguments) is None


PLAIN = (functional.conv1d, functional.conv2d, functional.conv3d)
BACK = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)
sides = st.integers(1, 3)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.data(), st.sampled_from([1, 2]))
def test_a_convolution_gives_its_patches(dims: int, data: st.DataObject, groups: int) -> None:
    kernel, stride, dilation = (tuple(data.draw(sides) for _ in range(dims)) for _ in range(3))
    padding = tuple(data.draw(st.integers(0, 2)) for _ in range(dims))
    x, weight = seeded(2, 2 * groups, *(dilation[dim] * (kernel[dim] - 1) + 1 for dim in range(dims))), seeded(2 * groups, 2, *kernel)
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    convolve: Callable[..., Tensor] = PLAIN[dims - 1]
    expected = convolve(x, weight, **options).transpose(0, 1).reshape(groups, 2, -1)
    torch.testing.assert_close(outputs(found("convolution", "weight", weight, input=x, **options), weight), expected.flatten())


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.data(), st.sampled_from([1, 2]))
def test_a_transposed_convolution_gives_patches_of_its_input_with_zeros_between(dims: int, data: st.DataObject, groups: int) -> None:
    kernel, stride, dilation = (tuple(data.draw(sides) for _ in range(dims)) for _ in range(3))
    padding = tuple(data.draw(st.integers(0, dilation[dim] * (kernel[dim] - 1) + 1)) for dim in range(dims))
    extra = tuple(data.draw(st.integers(0, max(stride[dim], dilation[dim]) - 1)) for dim in range(dims))
    x, weight = seeded(2, 3 * groups, *(9 for _ in range(dims))), seeded(3 * groups, 2, *kernel)
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "output_padding": extra, "groups": groups}
    convolve: Callable[..., Tensor] = BACK[dims - 1]
    expected = convolve(x, weight, **options).transpose(0, 1)
    made = found("convolution", "weight", weight, input=x, transposed=True, **options)
    torch.testing.assert_close(outputs(made, weight.reshape(groups, -1, *weight.shape[1:])), expected.flatten(), rtol=1e-4, atol=1e-5)


def test_patches_come_in_pieces_that_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = seeded(5, 2, 6), seeded(4, 2, 3)
    monkeypatch.setattr(operands, "_PATCHES", 2 * 2 * 6 * 3)
    made = found("convolution", "weight", weight, input=x)
    assert made is not None
    assert [vectors.shape[1] for _, vectors in made.vectors()] == [8, 8, 4]


def test_half_precision_inputs_are_unfolded_in_float32() -> None:
    made = found("convolution", "weight", seeded(4, 2, 3).bfloat16(), input=seeded(5, 2, 6).bfloat16())
    assert made is not None
    assert {vectors.dtype for _, vectors in made.vectors()} == {torch.float32}


@pytest.mark.parametrize(("value", "expected"), [(2, (2, 2)), ([3], (3, 3)), ((1, 4), (1, 4))])
def test_one_number_stands_for_every_dim(value: Any, expected: tuple[int, ...]) -> None:
    assert each(value, 2) == expected
