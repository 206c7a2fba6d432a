import pytest
import torch
from torch import Tensor

from mpq.data.mask_forms import are_lengths, is_certain, lengths_mask, looks_like_mask, precedence, said_by_content, said_by_name, sides_of

REAL = torch.tensor([[True, True, True, False], [True, True, False, False]])
IDS = torch.tensor([[5, 6, 7, 0], [5, 6, 0, 0]])


@pytest.mark.parametrize(
    "mask",
    [
        REAL,
        REAL.float(),
        REAL.long()[:, None, :],
        REAL[:, None, :].expand(2, 4, 4) & torch.ones(4, 4, dtype=torch.bool).tril(),
        REAL[:, None, None, :].expand(2, 3, 4, 4),
        torch.where(REAL, 0.0, torch.finfo(torch.float32).min),
    ],
)
def test_masks_are_read_in_all_their_forms(mask: Tensor) -> None:
    sides = sides_of("attention_mask", mask, 2, [])
    assert sides is not None
    assert torch.equal(sides.true, REAL)


def test_what_is_true_for_padding_is_so_for_every_query() -> None:
    sides = sides_of("mask", ~REAL[:, None, :].expand(2, 4, 4), 2, [])
    assert sides is not None
    assert torch.equal(sides.false, REAL)


@pytest.mark.parametrize(
    "mask", [torch.ones(4, 4).tril(), ~torch.ones(4, 4, dtype=torch.bool).tril(), torch.randn(4, 4), torch.ones(3, 4), torch.ones(4)]
)
def test_other_inputs_are_no_masks_of_four_samples(mask: Tensor) -> None:
    assert sides_of("mask", mask, 4, []) is None


def test_a_mask_of_an_image_keeps_height_and_width() -> None:
    mask = torch.zeros(2, 3, 5, dtype=torch.bool)
    mask[:, :2] = True
    image = torch.randn(2, 7, 3, 5) * mask.unsqueeze(1)
    sides = sides_of("valid", mask, 2, [image])
    assert sides is not None
    assert torch.equal(sides.true, mask)
    assert said_by_content("valid", sides, [image]) is True


@pytest.mark.parametrize(("middle", "said"), [(False, True), (True, None)])
def test_padding_of_images_is_known_by_their_edges_if_the_name_says_nothing(middle: bool, said: bool | None) -> None:
    mask = torch.ones(2, 6, 5, dtype=torch.bool)
    if middle:
        mask[:, 2:4, 1:3] = False
    else:
        mask[0, 4:], mask[1, :, 2:] = False, False
    image = torch.randn(2, 7, 6, 5) * mask.unsqueeze(1)
    sides = sides_of("pixel_mask", mask, 2, [image])
    assert sides is not None
    assert said_by_content("pixel_mask", sides, [image]) is said


def test_padding_is_one_value_and_data_is_not() -> None:
    sides = sides_of("m", REAL, 2, [IDS])
    assert sides is not None
    assert said_by_content("m", sides, [IDS]) is True
    assert said_by_content("m", sides, [IDS + torch.arange(4)]) is None
    assert said_by_content("m", sides, [torch.ones(2, 4)]) is None  # all the same
    hole = sides_of("m", REAL.flip(0) & ~torch.tensor([True, False, False, False]), 2, [IDS])
    assert hole is not None
    assert said_by_content("m", hole, [torch.where(hole.true, IDS, 0) + hole.true]) is None  # in the midst of data, and no mask by its name
    assert said_by_content("mask", hole, [torch.where(hole.true, 1 + IDS + torch.arange(4), 0)]) is True


def test_segments_are_no_padding() -> None:
    segments = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    tokens = torch.tensor([[5, 6, 7, 8], [5, 9, 6, 7]])
    sides = sides_of("token_type_ids", segments, 2, [tokens])
    assert sides is not None
    assert said_by_content("token_type_ids", sides, [tokens]) is None
    assert said_by_name("token_type_ids", segments) is None


def test_names_say_what_true_values_are() -> None:
    assert said_by_name("attention_mask", REAL) is True
    assert said_by_name("key_padding_mask", REAL.long()) is False
    assert said_by_name("padding_mask", REAL) is False
    assert said_by_name("padding_mask", REAL.long()) is True
    assert said_by_name("encoder_attention_mask", REAL) is None
    assert said_by_name("attention_mask", torch.where(REAL, 0.0, -1e9)) is True
    assert said_by_name("bias", torch.where(REAL, 0.0, -1e9)) is None
    assert (looks_like_mask("valid"), looks_like_mask("causal_mask"), is_certain("attention_mask"), is_certain("padding_mask")) == (
        True,
        False,
        True,
        False,
    )
    assert sorted(["memory_mask", "mask", "attention_mask", "tgt_mask"], key=precedence) == [
        "tgt_mask",
        "attention_mask",
        "mask",
        "memory_mask",
    ]


def test_lengths_end_where_padding_begins() -> None:
    lengths = torch.tensor([3, 2])
    assert torch.equal(lengths_mask(lengths, 4), REAL)
    assert are_lengths(lengths, 2, [IDS]) == 4
    assert are_lengths(torch.tensor([2, 3]), 2, [IDS]) is None
    assert are_lengths(torch.tensor([3, 3]), 2, [IDS]) is None
    assert are_lengths(torch.tensor([3.0, 2.0]), 2, [IDS]) is None
