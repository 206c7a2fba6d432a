import pytest
import torch

from mpq.models.running import positions
from mpq.models.running.positions import expanded, flat, in_pieces, kept_values, mask_of_output, position_weights, random_signs

MASK = torch.tensor([[True, True, False], [True, False, False]])
NAN = float("nan")


@pytest.mark.parametrize(
    ("mask", "output", "shape"),
    [
        ((2, 3), (2, 3, 5), (2, 3, 1)),
        ((2, 3), (2, 3), (2, 3)),
        ((2, 4, 6), (2, 4, 6, 5), (2, 4, 6, 1)),
        ((2, 4, 6), (2, 7, 4, 6), (2, 1, 4, 6)),
        ((2, 3), (2, 5), None),
        ((2, 3), (2, 5, 3), None),
        ((2, 4, 6), (3, 7, 4, 6), None),
    ],
)
def test_a_mask_is_laid_over_the_positions_of_an_output(
    mask: tuple[int, ...], output: tuple[int, ...], shape: tuple[int, ...] | None
) -> None:
    found = expanded(torch.ones(mask, dtype=torch.bool), torch.zeros(output))
    assert (None if found is None else tuple(found.shape)) == shape


def test_values_that_do_not_count_are_zero_whatever_stood_there_and_have_no_gradient() -> None:
    values = torch.tensor([[1.0, 2.0, NAN], [4.0, NAN, NAN]], requires_grad=True)
    kept = kept_values(values, MASK)
    assert kept.tolist() == [[1, 2, 0], [4, 0, 0]]
    kept.sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert values.grad.tolist() == [[1, 1, 0], [1, 0, 0]]


def test_kept_values_keep_their_dtype() -> None:
    assert kept_values(torch.ones(2, 3, dtype=torch.bfloat16), MASK).dtype == torch.bfloat16
    assert kept_values(torch.ones(2, 3, dtype=torch.int64), MASK).tolist() == [[1, 1, 0], [1, 0, 0]]


def test_an_output_is_flattened_to_one_row_per_sample() -> None:
    output = torch.arange(12).reshape(2, 3, 2).half()
    assert flat(output).tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert flat(output).dtype == torch.float32
    assert flat(output, MASK).tolist() == [[0, 1, 2, 3, 0, 0], [6, 7, 0, 0, 0, 0]]


def test_a_mask_of_other_positions_hides_nothing() -> None:
    assert flat(torch.ones(2, 5), MASK).tolist() == [[1] * 5] * 2


@pytest.mark.parametrize(
    ("lengths", "own", "kept"),
    [
        ((3, 2), 6, [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]),
        ((6, 4), 3, [[1, 1, 1], [1, 1, 0]]),
        ((6, 3), 3, [[1, 1, 1], [1, 0, 0]]),  # the second position reaches into padding
        ((6, 1), 3, [[1, 1, 1], [1, 0, 0]]),  # one always counts
    ],
)
def test_a_mask_of_inputs_is_scaled_to_the_positions_of_an_output(lengths: tuple[int, int], own: int, kept: list[list[int]]) -> None:
    mask = torch.arange(lengths[0]) < torch.tensor(lengths)[:, None]
    scaled = mask_of_output(mask, torch.zeros(2, own, 4), "scaled")
    last = mask_of_output(mask, torch.zeros(2, 4, own), "last")
    assert scaled is not None
    assert last is not None
    assert scaled.int().tolist() == kept
    assert last.shape == (2, 4, own)
    assert last[:, 3].int().tolist() == kept
    assert mask_of_output(mask, torch.zeros(2, own, 4), None) is None
    assert mask_of_output(mask, torch.zeros(2, own, 4), "positions") is mask


def test_the_weights_of_the_positions_of_each_sample_sum_to_one() -> None:
    output = torch.zeros(2, 3, 7)
    weights = position_weights(output, output, MASK)
    assert weights is not None
    assert weights.dtype == torch.float64
    assert weights.tolist() == [[0.5, 0.5, 0], [1, 0, 0]]


def test_a_sample_that_is_all_padding_has_no_weight() -> None:
    output = torch.zeros(1, 3, 7)
    weights = position_weights(output, output, torch.zeros(1, 3, dtype=torch.bool))
    assert weights is not None
    assert weights.tolist() == [[0, 0, 0]]


def test_without_a_mask_of_its_positions_an_output_has_no_weights() -> None:
    output = torch.zeros(2, 4, 7)
    assert position_weights(output, output, None) is None
    assert position_weights(output, output, MASK) is None


def test_positions_of_several_dimensions_are_one_row() -> None:
    mask = torch.ones(2, 2, 3, dtype=torch.bool)
    output = torch.zeros(2, 2, 3, 7)
    weights = position_weights(output.reshape(2, 6, 7), output, mask)
    assert weights is not None
    assert weights.flatten().tolist() == pytest.approx([1 / 6] * 12)


@pytest.mark.parametrize("shape", [(), (1,), (31,), (33,), (2, 3, 40)])
def test_signs_are_plus_and_minus_one(shape: tuple[int, ...]) -> None:
    signs = random_signs(shape, torch.Generator().manual_seed(0))
    assert signs.shape == shape
    assert signs.dtype == torch.float32
    assert set(signs.flatten().tolist()) <= {1.0, -1.0}


def test_signs_are_fair_independent_and_follow_the_seed() -> None:
    first, other = (random_signs((64, 4096), torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert torch.equal(first, random_signs((64, 4096), torch.Generator().manual_seed(0)))
    products = first @ first.T / 4096
    assert abs(float(first.mean())) < 0.01
    assert abs(float((first * other).mean())) < 0.01
    assert float((products - torch.eye(64)).abs().max()) < 0.1  # five standard errors are 0.08


def test_pieces_are_all_values_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "PIECE", 4)
    values = torch.arange(10.0).reshape(5, 2).t()
    pieces = in_pieces(values)
    assert [len(piece) for piece in pieces] == [4, 4, 2]
    assert torch.equal(torch.cat(pieces), values.flatten())
    assert in_pieces(torch.empty(0, 3)) == ()
