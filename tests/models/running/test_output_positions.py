"""Where outputs have the positions of their inputs, in models that shorten, transpose or pool them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mpq
from mpq.data.batch import Batch
from mpq.models.running.choose_comparison import choose_comparison
from mpq.models.running.forward import Outputs, forward, named
from mpq.models.running.output_positions import counts_positions, mask_place
from mpq.models.running.positions import mask_of_output

SIGNALS = torch.randn(4, 3, 12, generator=torch.Generator().manual_seed(0))
HALF = torch.arange(12).expand(4, 12) < 6
SAME, STRIDED, WIDE = nn.Conv1d(3, 5, 3, padding=1), nn.Conv1d(3, 5, 4, stride=2), nn.Linear(12, 12)


class Made(nn.Module):
    """Returns what a function makes of its input."""

    def __init__(self, make: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor, *_: Tensor) -> Any:
        return self.make(x)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (SAME, True),
        (STRIDED, True),
        (lambda x: SAME(x).mT, False),
        (lambda x: SAME(x).mean(-1), False),
        (lambda x: x @ x.mT, False),
        (lambda x: x.mT @ x, False),  # [12, 12]: the other dimension shrinks as well
        (WIDE, False),  # takes no shorter input
    ],
)
def test_a_last_dimension_that_shrinks_alone_with_that_of_the_inputs_counts_positions(make: Any, expected: bool) -> None:
    module, batch = Made(make).eval(), Batch((SIGNALS,))
    assert counts_positions(module, batch, "output", named(forward(module, batch))["output"]) == expected


def test_tokens_have_classes_for_each_position_or_a_score() -> None:
    ids = torch.arange(24).reshape(4, 6)
    for make, expected in ((lambda x: x * 2.0, True), (lambda x: nn.functional.one_hot(x, 24).float(), False)):
        module, batch = Made(make).eval(), Batch((ids,))
        assert counts_positions(module, batch, "output", named(forward(module, batch))["output"]) == expected


IN_PROPORTION = "output 'output' has 5 positions for the 12 of the mask, which applies in proportion"
NOWHERE = "no dimension of output 'output' [7, 3] counts the positions of the mask, so padding is not left out of it"


@pytest.mark.parametrize(
    ("make", "place", "note"),
    [
        (SAME, "last", ""),
        (STRIDED, "last", IN_PROPORTION),
        (lambda x: STRIDED(x).mT, "scaled", IN_PROPORTION),
        (lambda x: STRIDED(x)[:, 0], "scaled", IN_PROPORTION),
        (lambda x: SAME(x).mT, "positions", ""),
        (lambda x: SAME(x)[:, 0], "positions", ""),
        (lambda x: SAME(x).mean(-1), "positions", ""),
        (lambda x: x.mean(-1)[:, None, :].expand(-1, 7, -1), "positions", NOWHERE),
        (WIDE, "last", ""),
    ],
)
def test_a_mask_applies_to_the_dimension_that_shrinks_with_the_inputs(make: Any, place: str, note: str) -> None:
    module, batch = Made(make).eval(), Batch((SIGNALS,), mask=HALF)
    assert mask_place(module, batch, "output", named(forward(module, batch))["output"]) == (place, note)


def test_a_mask_of_pixels_applies_to_maps_and_is_scaled_to_smaller_ones() -> None:
    images = torch.randn(4, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(8)[:, None] < 4) & (torch.arange(6) < 6).expand(4, 8, 6)
    for make, place, note in (
        (nn.Conv2d(3, 5, 3, padding=1), "positions", ""),
        (
            nn.Conv2d(3, 5, 2, stride=2),
            "scaled",
            "output 'output' has [4, 3] positions for the [8, 6] of the mask, which applies in proportion",
        ),
        (lambda x: x.mean((2, 3)), "positions", ""),
        (lambda x: x.mean((2, 3))[:, None].expand(-1, 7, -1), "positions", NOWHERE),
    ):
        module, batch = Made(make).eval(), Batch((images,), mask=mask)
        assert mask_place(module, batch, "output", named(forward(module, batch))["output"]) == (place, note)
    small = mask_of_output(mask, torch.zeros(4, 5, 4, 3), "scaled")
    assert small is not None
    assert small[0].int().tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]]


def test_the_comparison_uses_both_and_says_so() -> None:
    module, batch = Made(STRIDED).eval(), Batch((SIGNALS,), mask=HALF)
    found = choose_comparison(module, [batch])
    (part,) = found.comparison.parts
    assert (part.metric, part.mask) == ("relative_mse", "last")
    reason = "the last dimension of the output becomes shorter with that of the inputs: positions, not classes"
    assert found.notes[:2] == (f"metric relative_mse: {reason}", IN_PROPORTION)
    before = forward(module, batch)
    after = Outputs.of({"output": before[0].clone()})
    after[0][..., 2:] += 1  # of five positions, 0 and 1 lie within the first half
    assert found.comparison.errors(found.comparison.prepare(before, HALF), after).tolist() == [0] * 4
    assert choose_comparison(Made(lambda x: STRIDED(x).mT).eval(), [batch]).comparison.parts[0].metric == "kl_divergence"


class Speech(nn.Module):
    """A recognizer: frames of the signal, then classes for each; lengths are counted in samples of the signal."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.frames, self.head = nn.Conv1d(1, 6, 4, stride=4), nn.Linear(6, 5)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        found: Tensor = self.head(torch.relu(self.frames(x.unsqueeze(1))).mT)
        return found


def test_padding_of_a_signal_counts_in_none_of_its_frames_and_labels_of_ctc_are_no_positions() -> None:
    before, after = Speech().eval(), Speech().eval()
    with torch.no_grad():
        after.head.weight += 0.1 * torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([40, 16, 24, 8] * 4)
    x = torch.randn(16, 40, generator=torch.Generator().manual_seed(2))
    x[torch.arange(40) >= lengths[:, None]] = 0
    labels = torch.where(torch.arange(3) < lengths[:, None] // 12, 1, -100)
    found = mpq.evaluate(before, after, {"x": x, "lengths": lengths, "labels": labels})
    with torch.no_grad():
        p, q = (torch.log_softmax(module(x, lengths).double(), -1) for module in (before, after))
    kept = torch.arange(10) < lengths[:, None] // 4
    kl = (p.exp() * (p - q)).sum(-1)
    assert found["kl_divergence"].quantized == pytest.approx(float(((kl * kept).sum(1) / kept.sum(1)).mean()), rel=1e-3)
