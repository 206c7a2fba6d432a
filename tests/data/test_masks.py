import pytest
import torch
from torch import Tensor

from mpq.data.batch import Batch
from mpq.data.masks import counted_positions, labels_are_next_tokens, padding_masks, with_masks
from mpq.errors import DataError

IDS = torch.tensor([[5, 6, 7, 0], [5, 6, 0, 0]])
REAL = IDS != 0


def found(batch: Batch, name: str | None = None) -> tuple[Tensor | None, str]:
    (masked,), note = with_masks([batch], name)
    return masked.mask, note


@pytest.mark.parametrize("key", ["attention_mask", "decoder_attention_mask", "padding_mask"])
def test_masks_that_are_true_for_data_are_found(key: str) -> None:
    mask, note = found(Batch((), {"input_ids": IDS, key: REAL.long()}))
    assert mask is not None
    assert torch.equal(mask, REAL)
    assert note == f"62% of the positions count, according to {key}; the others are padding"


@pytest.mark.parametrize("key", ["src_key_padding_mask", "key_padding_mask"])
def test_masks_of_torch_that_are_true_for_padding_are_turned_around(key: str) -> None:
    mask, _ = found(Batch((torch.zeros(2, 4, 3),), {key: ~REAL}))
    assert mask is not None
    assert torch.equal(mask, REAL)


def test_a_mask_that_lets_all_through_is_no_mask() -> None:
    assert found(Batch((), {"input_ids": IDS, "attention_mask": torch.ones(2, 4)})) == (None, "")


@pytest.mark.parametrize("mask", [torch.where(REAL, 0.0, -1e9), torch.where(REAL, 0.0, -torch.inf)[:, None, None, :]])
def test_additive_masks_are_masks(mask: Tensor) -> None:
    kept, _ = found(Batch((), {"input_ids": IDS, "attention_mask": mask}))
    assert kept is not None
    assert torch.equal(kept, REAL)


@pytest.mark.parametrize(
    ("key", "true"), [("padding_mask", True), ("padding_mask", False), ("valid", True), ("is_pad", False), ("m", False)]
)
def test_which_values_are_padding_is_seen_where_another_input_repeats_one_value(key: str, true: bool) -> None:
    mask, note = found(Batch((), {"input_ids": IDS, key: true == REAL}))
    assert mask is not None
    assert torch.equal(mask, REAL)
    assert note == f"62% of the positions count, according to {key}; the others are padding"


def test_a_mask_that_only_its_name_explains_is_said_to_be_read_so_and_can_be_turned_round() -> None:
    tokens = torch.tensor([[5, 6, 7, 8], [5, 6, 8, 9]])
    batch = Batch((), {"input_ids": tokens, "pad_mask": ~REAL})
    mask, note = found(batch)
    assert mask is not None
    assert torch.equal(mask, REAL)
    assert "according to pad_mask (judged by its name; --mask ~pad_mask inverts it);" in note
    other, _ = found(batch, "~pad_mask")
    assert other is not None
    assert torch.equal(other, REAL)  # ~ says that true values are padding, which they are
    kept, _ = found(batch, "pad_mask")
    assert kept is not None
    assert torch.equal(kept, ~REAL)


def test_all_batches_say_together_what_a_mask_means() -> None:
    full = Batch((), {"input_ids": IDS + 1, "padding_mask": torch.zeros(2, 4, dtype=torch.long)})  # nothing is padded
    padded = Batch((), {"input_ids": IDS, "padding_mask": (~REAL).long()})
    batches, _ = with_masks([full, padded])
    assert batches[0].mask is None
    assert batches[1].mask is not None
    assert torch.equal(batches[1].mask, REAL)


@pytest.mark.parametrize("name", ["lengths", "n_tokens"])
def test_lengths_are_known_by_name_or_by_the_padding_behind_them(name: str) -> None:
    mask, _ = found(Batch((), {"input_ids": IDS, name: torch.tensor([3, 2])}))
    assert mask is not None
    assert torch.equal(mask, REAL)
    assert found(Batch((), {"input_ids": IDS + 1, "n_tokens": torch.tensor([1, 3])}))[0] is None  # nothing is repeated behind them


def test_labels_of_minus_100_do_not_count() -> None:
    labels = torch.tensor([[1, -100, 2, 0], [-100, -100, 3, 1]])
    mask, note = found(Batch((torch.zeros(2, 4, 3),), {}, labels))
    assert mask is not None
    assert torch.equal(mask, labels != -100)
    assert "labels of -100" in note


def test_labels_of_a_causal_model_judge_the_position_before() -> None:
    labels = torch.where(IDS > 5, IDS, -100)
    batch = Batch((), {"input_ids": IDS}, labels)
    assert labels_are_next_tokens(batch)
    mask, _ = found(batch)
    assert mask is not None
    assert mask.tolist() == [[True, True, False, False], [True, False, False, False]]


def test_labels_that_the_model_takes_as_an_input_are_labels_too() -> None:
    labels = torch.tensor([[5, 6, -100], [5, -100, -100]])
    mask, note = found(Batch((), {"input_ids": IDS, "attention_mask": REAL.long(), "labels": labels}))
    assert mask is not None
    assert mask.tolist() == [[True, True, False], [True, False, False]]
    assert note == "50% of the positions count, according to labels of -100; the others are padding"


def test_mask_and_labels_are_taken_together() -> None:
    labels = torch.tensor([[1, -100, 2, 0], [0, 1, 3, 1]])
    mask, note = found(Batch((), {"input_ids": IDS, "attention_mask": REAL}, labels))
    assert mask is not None
    assert mask.tolist() == [[True, False, True, False], [True, True, False, False]]
    assert "attention_mask and labels of -100" in note


def test_a_named_mask_wins_and_an_unknown_name_lists_what_there_is() -> None:
    batch = Batch((), {"input_ids": IDS, "valid": REAL, "attention_mask": torch.ones(2, 4)})
    mask, _ = found(batch, "valid")
    assert mask is not None
    assert torch.equal(mask, REAL)
    with pytest.raises(DataError, match=r"'nothing' is not a mask of this data: .*input_ids, valid, attention_mask"):
        found(batch, "nothing")


def test_a_batch_keeps_its_own_mask_through_cutting_and_joining() -> None:
    batch = Batch((IDS,), mask=REAL)
    mask = batch.select([1]).mask
    assert mask is not None
    assert torch.equal(mask, REAL[1:])
    assert found(batch)[0] is batch.mask


def test_samples_that_are_all_padding_are_dropped_and_no_data_at_all_is_refused() -> None:
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]])
    (kept,), note = with_masks([Batch((), {"input_ids": IDS, "attention_mask": mask})])
    assert kept.size == 1
    assert "1 samples that are all padding are dropped" in note
    with pytest.raises(DataError, match="leaves no position to measure"):
        with_masks([Batch((), {"input_ids": IDS, "attention_mask": torch.zeros(2, 4)})])


def test_tokens_without_a_label_are_data_for_the_layers_that_read_them() -> None:
    labels = torch.where(IDS > 5, IDS, -100)
    (batch,), _ = with_masks([Batch((), {"input_ids": IDS, "attention_mask": REAL}, labels)])
    (mask,) = padding_masks(batch)
    assert torch.equal(mask, REAL)
    (batch,), _ = with_masks([Batch((), {"input_ids": IDS}, labels)])
    assert padding_masks(batch) == []


def test_the_share_of_positions_counts_batches_without_padding_too() -> None:
    padded = Batch((), {"input_ids": IDS, "attention_mask": REAL.long()})  # 5 of 8
    full = Batch((), {"input_ids": torch.ones(3, 8), "attention_mask": torch.ones(3, 8)})  # 24 of 24
    batches, note = with_masks([padded, full])
    assert batches[1].mask is None
    assert counted_positions(batches) == (29, 32)
    assert note.startswith("91% of the positions count")
    assert counted_positions([full]) == (0, 0)
