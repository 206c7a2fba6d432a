"""Some of the samples, spread evenly over all."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpq.data.batch import Batch
from mpq.data.spread import samples_at, spread_order, spread_ranks


def test_the_order_is_that_of_multiples_of_the_golden_ratio() -> None:
    assert spread_order(10, 5) == [0, 6, 2, 8, 4]
    assert spread_order(199, 4) == [0, 122, 46, 169]
    assert spread_order(3, 9) == [0, 1, 2]
    assert spread_ranks(10, 4) == ([0, 2, 6, 8], (0, 2, 1, 3))


@given(st.integers(1, 500), st.integers(1, 500))
@settings(max_examples=50, deadline=None)
def test_a_larger_number_adds_to_a_smaller_one_and_no_gap_is_wide(count: int, most: int) -> None:
    order = spread_order(count)
    assert sorted(order) == list(range(count))
    assert spread_order(count, most) == order[:most]
    places = [*sorted(order[:most]), count]
    wide = max(right - left for left, right in pairwise(places))
    assert wide <= 1 + 2.4 * count / min(most, count)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_classes_in_turn_are_met_alike(classes: int) -> None:
    counts = [sum(place % classes == label for place in spread_order(1000, 100)) for label in range(classes)]
    assert max(counts) - min(counts) <= 24 / classes + 8


def test_samples_of_several_batches_are_picked_by_their_place_over_all() -> None:
    batches = [Batch((torch.arange(4).view(4, 1),)), Batch((torch.arange(4, 7).view(3, 1),))]
    assert [piece.args[0].flatten().tolist() for piece in samples_at(batches, [1, 3, 6])] == [[1, 3], [6]]
    assert [piece.args[0].flatten().tolist() for piece in samples_at(batches, [5])] == [[5]]
