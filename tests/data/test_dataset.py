from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from mpq.data.dataset import Batch, Data, data_from_batches, make_data
from mpq.data.spread import spread_ranks
from mpq.errors import DataError, UsageError


def numbered(samples: int, *, labels: bool = False) -> Data:
    """Samples that carry their own position, so that a test sees where each one went."""
    values = torch.arange(samples).float().repeat(2, 1).T.contiguous()
    return make_data([Batch((values,), {}, torch.arange(samples) if labels else None)], source="numbered")


def positions(data: Data) -> list[int]:
    return [int(row[0]) for batch in data.batches for row in batch.args[0]]


def sizes(data: Data) -> list[int]:
    return [batch.size for batch in data.batches]


@given(st.integers(1, 20), st.integers(1, 8), st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_rebatching_keeps_order_and_hash(samples: int, first: int, second: int) -> None:
    data = numbered(samples, labels=True)
    again = data.rebatch(first).rebatch(second)
    assert positions(again) == list(range(samples))
    assert max(sizes(again)) == min(second, samples)
    assert make_data(again.batches, source="elsewhere").sha256 == data.sha256


def test_samples_of_unlike_shapes_are_never_joined() -> None:
    data = data_from_batches([torch.zeros(3, 4), torch.zeros(2, 5), torch.zeros(2, 5)])
    assert sizes(data.rebatch(8)) == [3, 4]
    assert data.description == "7 samples of [4] and 1 other shape"


def test_a_split_is_a_partition_that_the_seed_decides_and_batch_boundaries_do_not() -> None:
    data = numbered(20)
    kept, held = data.split(0.25, seed=0)
    assert (kept.samples, held.samples) == (15, 5)
    assert sorted(positions(kept) + positions(held)) == list(range(20))
    assert positions(data.rebatch(3).split(0.25, seed=0)[1]) == positions(held)
    assert positions(data.split(0.25, seed=1)[1]) != positions(held)


def test_a_split_takes_labels_along_and_keeps_the_batch_size() -> None:
    kept, _ = numbered(20, labels=True).rebatch(4).split(0.2, seed=0)
    assert sizes(kept) == [4, 4, 4, 4]
    assert [int(label) for batch in kept.batches if batch.labels is not None for label in batch.labels] == positions(kept)


def test_running_text_is_split_by_position() -> None:
    data = make_data([Batch((), {"input_ids": torch.arange(10).reshape(10, 1)})], source="text", ordered=True)
    _, held = data.split(0.2, seed=3)
    assert held.batches[0].kwargs["input_ids"].flatten().tolist() == [8, 9]
    assert held.description == "2 windows of input_ids [1]"
    assert held.ordered


def test_both_sides_of_a_split_hold_a_sample() -> None:
    assert [part.samples for part in numbered(2).split(0.01, seed=0)] == [1, 1]
    assert [part.samples for part in numbered(2).split(0.99, seed=0)] == [1, 1]


def test_one_sample_cannot_be_split() -> None:
    message = r"^numbered: 1 sample cannot be split into a calibration and a held-out part: give more samples$"
    with pytest.raises(DataError, match=message):
        numbered(1).split(0.2, seed=0)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 20.0])
def test_a_share_outside_zero_to_one_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match=rf"^{share} is not a share to hold out: give a number between 0 and 1, for example 0.2$"):
        numbered(4).split(share, seed=0)


def test_data_of_a_fixed_batch_size_is_split_and_shortened_by_whole_batches() -> None:
    data = make_data(numbered(12).rebatch(4).batches, source="fixed", fixed_batch=4)
    kept, held = data.split(0.1, seed=0)
    assert (sizes(kept), sizes(held)) == ([4, 4], [4])
    assert sizes(data.first(6)) == [4]
    assert sizes(data.first(1)) == [4]
    with pytest.raises(DataError, match=r"^the model takes exactly 4 samples per batch, not 2$"):
        data.rebatch(2)
    with pytest.raises(DataError, match=r"^fixed: 4 samples \(the model takes exactly 4 per batch\) cannot be split"):
        data.first(4).split(0.5, seed=0)


def test_first_takes_the_first_samples_across_batches_or_all() -> None:
    data = numbered(10).rebatch(4)
    assert positions(data.first(6)) == list(range(6))
    assert data.first(99).sha256 == data.sha256


def test_numbers_of_samples_must_be_positive() -> None:
    with pytest.raises(UsageError, match=r"^0 is not a number of samples: give 1 or more$"):
        numbered(2).first(0)
    with pytest.raises(UsageError, match=r"^0 is not a batch size: give 1 or more$"):
        numbered(2).rebatch(0)


def test_batches_of_a_data_loader_are_read_with_their_labels() -> None:
    loader = DataLoader(TensorDataset(torch.randn(10, 3), torch.arange(10)), batch_size=4)
    data = data_from_batches(loader)
    assert sizes(data) == [4, 4, 2]
    assert data.description == "10 samples of [3]"
    assert [len(batch.args) for batch in data.batches] == [1, 1, 1]
    assert data.batches[2].labels is not None
    assert data.batches[2].labels.tolist() == [8, 9]


@pytest.mark.parametrize("empty", [[], (), torch.zeros(0, 3)], ids=["list", "tuple", "tensor"])
def test_no_samples_are_refused(empty: object) -> None:
    with pytest.raises(DataError, match=r"holds no samples: give at least one$"):
        data_from_batches(empty)  # type: ignore[arg-type]


def test_spread_samples_keep_their_order_and_their_sides_when_others_are_added() -> None:
    few, more, whole = numbered(40).spread(8), numbered(40).spread(20), numbered(40)
    assert positions(few) == [0, 3, 9, 13, 18, 24, 28, 34]
    assert positions(numbered(10).spread(99)) == list(range(10))
    facts = {"held_out": 0.25, "seed": 0, "split": "position", "gap": 1, "spread": True}
    read = [replace(few, ranks=spread_ranks(40, 8)[1]), replace(more, ranks=spread_ranks(40, 20)[1]), whole]
    assert read[1].spread(8).sha256 == whole.spread(8).sha256 == few.sha256
    before = read[0].split_as(facts)
    assert [positions(side) for side in before] == [[0, 3, 9, 13, 18], [28, 34], [0, 3, 9, 13, 18]]
    for data, parts in zip(read[1:], ([8, 12], [8, 12, 20]), strict=True):
        after = data.split_as(facts | {"parts": parts})
        assert positions(after.first) == positions(before.calibration) == positions(after.calibration)[:5]
        assert positions(after.held_out)[:2] == positions(before.held_out)
        assert max(positions(after.calibration)) == 18 < 28 == min(positions(after.held_out))
        assert len(set(positions(after.calibration) + positions(after.held_out))) == after.calibration.samples + after.held_out.samples


def test_spread_samples_that_are_split_at_random_stay_on_their_sides() -> None:
    facts = {"held_out": 0.25, "seed": 0, "split": "random", "spread": True}
    before = replace(numbered(40).spread(8), ranks=spread_ranks(40, 8)[1]).split_as(facts)
    after = numbered(40).split_as(facts | {"parts": [8, 32]})
    assert positions(after.calibration)[:6] == positions(before.calibration)
    assert positions(after.held_out)[:2] == positions(before.held_out)
    assert sorted(positions(after.calibration) + positions(after.held_out)) == list(range(40))
