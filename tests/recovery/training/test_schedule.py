import math

import pytest
import torch

from mpq.recovery.training.schedule import clipped, length_of, share_at


def test_the_rate_rises_over_a_tenth_of_the_steps_and_falls_to_nearly_zero() -> None:
    shares = [share_at(step, 100) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9] == pytest.approx(1.0)
    assert shares[10] == pytest.approx(1.0)
    assert shares[55] == pytest.approx(0.5)
    assert shares[99] == pytest.approx(1 / 90)
    assert shares.index(max(shares)) == 9


def test_a_single_step_has_a_rate() -> None:
    assert share_at(0, 1) == 1.0


def test_the_length_is_that_of_all_gradients_together() -> None:
    assert length_of({"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])}) == pytest.approx(5.0)


def test_a_gradient_far_longer_than_those_before_is_cut_to_twice_their_median() -> None:
    given = {"a": torch.tensor([30.0]), "b": torch.tensor([40.0])}
    cut = clipped(given, 50.0, [1.0] * 5 + [2.0] * 10)
    assert length_of(cut) == pytest.approx(4.0)
    assert torch.allclose(cut["a"] / cut["b"], torch.tensor(0.75))
    assert clipped(given, 50.0, [1.0] * 7) == given  # too few to know
    assert math.isclose(length_of(clipped(given, 50.0, [49.0] * 20)), 50.0)
