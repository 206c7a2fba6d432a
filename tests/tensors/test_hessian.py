import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpq.tensors.hessian import blocks_of, conditioned, from_blocks, importance_of, inverse_factor, output_errors, to_blocks
from tests.tensors.quantizers.making import statistics_of, weights


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5))
def test_blocks_hold_the_columns_of_their_rows_and_go_back(groups: int, in_group: int, columns: int) -> None:
    matrix = weights(groups * in_group, columns)
    blocks = to_blocks(matrix, groups)
    assert blocks.shape == (groups, columns, in_group)
    assert blocks.is_contiguous()
    for row in range(len(matrix)):
        assert torch.equal(blocks[row // in_group, :, row % in_group], matrix[row])
    assert torch.equal(from_blocks(blocks), matrix)


def test_one_second_moment_is_one_block() -> None:
    assert blocks_of(torch.eye(3)).shape == (1, 3, 3)
    assert blocks_of(torch.ones(2, 3, 3)).shape == (2, 3, 3)


@pytest.mark.parametrize("groups", [0, 3])
def test_output_errors_are_the_mean_squares_of_what_outputs_are_off_by(groups: int) -> None:
    inputs = torch.randn(max(groups, 1), 50, 4, generator=torch.Generator().manual_seed(0))
    difference, hessian = weights(6, 4), inputs.mT @ inputs / 50
    found = output_errors(difference, hessian if groups else hessian[0])
    in_group = 6 // max(groups, 1)
    expected = [(inputs[row // in_group] @ difference[row]).square().mean() for row in range(6)]
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.stack(expected).double())


def test_conditioned_moments_have_mean_diagonal_one_and_are_damped() -> None:
    found = conditioned(torch.tensor([[1.0, 0.6], [0.6, 3.0]]), 10**12, 0.25)
    torch.testing.assert_close(found, torch.tensor([[[0.75, 0.3], [0.3, 1.75]]]))


def test_few_positions_shrink_the_moments_to_their_diagonal() -> None:
    hessian = statistics_of(20).hessian
    many, few, none = (conditioned(hessian, count, 0.0)[0] for count in (10**12, 2000, 1))
    relative = hessian / hessian.diagonal().mean()
    torch.testing.assert_close(many, relative, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(few.triu(1), 0.9 * relative.triu(1))
    torch.testing.assert_close(none.triu(1), 0.5 * relative.triu(1))
    assert torch.equal(conditioned(hessian, 0, 0.0)[0], none)


def test_a_group_without_input_gets_the_identity_and_the_others_keep_theirs() -> None:
    hessian = torch.stack([torch.zeros(3, 3), 2 * torch.eye(3)])
    assert torch.equal(conditioned(hessian, 100, 0.5), torch.stack([torch.eye(3), 1.5 * torch.eye(3)]))
    assert torch.equal(importance_of(hessian, 0.5), torch.tensor([[1.0] * 3, [1.5] * 3]))


def test_the_given_moments_are_left_as_they_were() -> None:
    hessian = statistics_of(5).hessian
    before = hessian.clone()
    conditioned(hessian, 10, 0.1)
    importance_of(hessian, 0.1)
    inverse_factor(blocks_of(hessian))
    assert torch.equal(hessian, before)


def test_importance_is_the_energy_of_columns_with_mean_one_but_for_the_damping() -> None:
    found = importance_of(torch.tensor([[1.0, 9.0], [9.0, 3.0]]), 0.125)
    assert found.tolist() == [[0.625, 1.625]]


def test_inverse_factor_is_the_upper_cholesky_factor_of_the_inverse() -> None:
    hessian = conditioned(statistics_of(20, groups=2).hessian, 400, 0.01)
    for factor, block in zip(inverse_factor(hessian), hessian, strict=True):
        assert torch.equal(factor, factor.triu())
        assert bool((factor.diagonal() > 0).all())
        torch.testing.assert_close(factor.T @ factor, block.inverse(), rtol=1e-4, atol=1e-4)


def test_inverse_factor_of_an_indefinite_matrix_is_finite_and_leaves_its_neighbour_alone() -> None:
    hessian = torch.ones(1, 6, 6) + torch.diag(torch.tensor([0, 0, 0, 0, -1e-4, 0]))
    found = inverse_factor(torch.cat([hessian, torch.eye(6)[None]]))
    assert bool(found.isfinite().all())
    assert torch.equal(found[1], torch.eye(6))
