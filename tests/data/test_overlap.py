import torch

from mpq.data.dataset import data_from_batches
from mpq.data.overlap import shared_samples
from tests.models.small import inputs


def test_samples_are_found_wherever_they_stand() -> None:
    rows = inputs(12, 4)
    one, other = data_from_batches([rows[:6]]), data_from_batches([rows[4:8], rows[8:]])
    assert shared_samples(one, other) == 2
    assert shared_samples(other, one) == 2
    assert shared_samples(one, data_from_batches([rows[6:]])) == 0


def test_the_same_numbers_in_another_dtype_are_other_samples() -> None:
    rows = torch.ones(2, 3)
    assert shared_samples(data_from_batches([rows]), data_from_batches([rows.double()])) == 0
