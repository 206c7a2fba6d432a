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
    assert note == f"62% of the positions count, by {key}; the others are padding"


@pytest.mark.parametrize("key", ["src_key_padding_mask", "key_padding_mask"])
def test_masks_of_torch_that_are_true_for_padding_are_turned_around(key: str) -> None:
    mask, _ = found(Batch((torch.zeros(2, 4, 3),), {key: ~REAL}))
    assert mask is not None
    assert torch.equal(mask, REAL)


def test_a_mask_that_lets_all_through_is_no_mask() -> None:
    assert found(Batch((), {"input_ids": IDS, "attention_mask": torch.ones(2, 4)})) == (None, "")


def test_an_additive_mask_is_not_taken_for_a_choice_of_positions() -> None:
    assert found(Batch((), {"input_ids": IDS, "attention_mask": torch.where(REAL, 0.0, -1e9)})) == (None, "")


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
    with pytest.raises(DataError, match="leaves no position that counts"):
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
