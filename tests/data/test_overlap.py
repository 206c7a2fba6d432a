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


def windows(ids: torch.Tensor, start: int, size: int) -> torch.Tensor:
    return ids[start : start + (len(ids) - start) // size * size].reshape(-1, size)


def test_text_is_found_in_other_windows_and_behind_other_padding() -> None:
    ids = torch.randint(0, 50, (960,), generator=torch.Generator().manual_seed(0))
    held_out = data_from_batches([windows(ids, 0, 96)[:4]])
    assert shared_samples(held_out, data_from_batches([windows(ids, 17, 96)])) == 4
    assert shared_samples(held_out, data_from_batches([windows(ids, 5, 128)[:1]])) == 1
    assert shared_samples(held_out, data_from_batches([windows(ids, 384, 96)])) == 0
    padded = torch.cat([torch.zeros(2, 64, dtype=torch.int64), ids[400:480].reshape(2, 40)], 1)
    longer = torch.cat([torch.zeros(2, 80, dtype=torch.int64), ids[400:480].reshape(2, 40)], 1)
    other = torch.cat([torch.zeros(2, 80, dtype=torch.int64), ids[600:680].reshape(2, 40)], 1)
    assert shared_samples(data_from_batches([padded]), data_from_batches([longer])) == 2
    assert shared_samples(data_from_batches([padded]), data_from_batches([other])) == 0
    assert shared_samples(data_from_batches([torch.ones(2, 96).long()]), data_from_batches([torch.ones(3, 64).long()])) == 0
