import math

import pytest
import torch

from mpq.tensors.rate_limit import least_bits


def test_with_independent_inputs_each_bit_quarters_the_error() -> None:
    for bits in (0.5, 1.0, 3.0, 6.25):
        error = 4 * 5 * 0.09 * 2 ** (-2 * bits)
        assert least_bits(error, torch.full((4,), 0.09), torch.eye(5)) == pytest.approx(bits, rel=1e-6)


def test_inputs_below_the_level_get_no_bits() -> None:
    # components 16, 4, 1 under level 2: error 2 + 2 + 1, bits log2(8) / 2 + log2(2) / 2 for three weights
    assert least_bits(5.0, torch.ones(1), torch.diag(torch.tensor([4.0, 1.0, 16.0]))) == pytest.approx(2 / 3, rel=1e-6)
    # all above level 1/2: log2(32 * 8 * 2) / 2
    assert least_bits(1.5, torch.ones(1), torch.diag(torch.tensor([4.0, 1.0, 16.0]))) == pytest.approx(1.5, rel=1e-6)


def test_rows_share_one_level() -> None:
    # components 16 and 1 of two rows, level 2: error 2 + 1, log2(8) / 2 for two weights
    assert least_bits(3.0, torch.tensor([16.0, 1.0]), torch.ones(1, 1)) == pytest.approx(0.75, rel=1e-6)


def test_only_the_eigenvalues_matter() -> None:
    basis = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))[0]
    eigenvalues = torch.tensor([0.0, 0.5, 1.0, 2.0, 8.0, 40.0])
    turned = least_bits(2.5, torch.tensor([1.0, 2.0]), basis @ eigenvalues.diag() @ basis.mT)
    assert turned == pytest.approx(least_bits(2.5, torch.tensor([1.0, 2.0]), eigenvalues.diag()), rel=1e-4)


def test_groups_of_rows_have_their_own_inputs() -> None:
    hessian = torch.stack((torch.eye(2), 4 * torch.eye(2)))
    # components 1, 1 and 4, 4 under level 1/4: bits 1, 1, 2, 2
    assert least_bits(1.0, torch.ones(2), hessian) == pytest.approx(1.5, rel=1e-6)


def test_the_largest_error_needs_no_bits_and_none_needs_infinitely_many() -> None:
    assert least_bits(6.0, torch.tensor([1.0, 2.0]), torch.eye(2)) == 0
    assert least_bits(0.0, torch.tensor([1.0, 0.0]), torch.eye(2)) == math.inf
    assert least_bits(0.5, torch.tensor([1.0, 0.0]), torch.eye(2)) == pytest.approx(0.5, rel=1e-6)
