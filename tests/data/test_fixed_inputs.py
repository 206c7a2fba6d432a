import pytest
import torch

from mpq.data.fixed_inputs import FixedInput, fixed_like


def test_numbers_have_a_mean_near_0_and_a_variance_near_1() -> None:
    values = FixedInput((40, 50), "float32").tensor()
    assert values.shape == (40, 50)
    assert abs(float(values.mean())) < 0.01
    assert float(values.var()) == pytest.approx(1.0, abs=0.01)


def test_the_values_are_those_of_the_sequence() -> None:
    assert FixedInput((3,), "float64").tensor().tolist() == pytest.approx([0.4088817, -0.9142873, 1.2266452], abs=1e-5)
    assert FixedInput((6,), "int64", below=10).tensor().tolist() == [6, 2, 8, 4, 0, 7]


def test_the_inputs_of_a_call_differ() -> None:
    fixed = FixedInput((20,), "float32")
    assert not torch.equal(fixed.tensor(0), fixed.tensor(1))


def test_whole_numbers_stay_in_their_range_and_equal_ones_keep_their_value() -> None:
    assert fixed_like(torch.tensor([[3, 0], [1, 2]])) == FixedInput((2, 2), "int64", below=4)
    assert fixed_like(torch.ones(2, 3, dtype=torch.int64)) == FixedInput((2, 3), "int64", value=1.0)
    assert fixed_like(torch.zeros(2, 3)) == FixedInput((2, 3), "float32")
    assert fixed_like(torch.zeros(1, 2, dtype=torch.int64), below=100) == FixedInput((1, 2), "int64", below=100)


def test_a_mask_of_ones_stays_one() -> None:
    mask = torch.ones(2, 3, dtype=torch.bool)
    assert torch.equal(fixed_like(mask).tensor(), mask)
