import pytest
import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.models.running.certainty import certainty_of
from mpq.models.running.comparison import Comparison, Part


def certainty_note(module: nn.Module, batches: list[Batch], metric: Comparison) -> str | None:
    return certainty_of(module, batches, metric).note("calibrate on validation data")


class Scaled(nn.Module):
    """Logits of three classes: one-hot rows times a scale."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


CLASSES = torch.arange(12) % 3
ROWS = nn.functional.one_hot(CLASSES, 3).float()
LOGITS = Comparison([Part("output", "kl_divergence")])


def entropy(scale: float) -> float:
    probabilities = torch.softmax(torch.tensor([scale, 0.0, 0.0], dtype=torch.float64), 0)
    return float(-(probabilities * probabilities.log()).sum())


def test_a_certain_reference_is_told_with_its_entropy_and_accuracy() -> None:
    note = certainty_note(Scaled(9.0), [Batch((ROWS,), {}, CLASSES)], LOGITS)
    assert note is not None
    assert f"(mean entropy {entropy(9.0):.2g} of at most 1.1 nats, accuracy 100.0%)" in note
    assert note.endswith("divergences on other data will be larger; calibrate on validation data")
    alone = certainty_note(Scaled(9.0), [Batch((ROWS,))], LOGITS)
    assert alone is not None
    assert "accuracy" not in alone


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_reference_that_is_certain_but_often_wrong_has_not_been_trained_on_these(wrong: int) -> None:
    labels = torch.where(torch.arange(12) < wrong, (CLASSES + 1) % 3, CLASSES)
    assert (certainty_note(Scaled(9.0), [Batch((ROWS,), {}, labels)], LOGITS) is None) == bool(wrong)


def test_an_uncertain_reference_or_outputs_that_are_no_logits_have_no_note() -> None:
    assert entropy(4.0) > 0.02 * 1.0986
    assert certainty_note(Scaled(4.0), [Batch((ROWS,))], LOGITS) is None
    assert certainty_note(Scaled(9.0), [Batch((ROWS,))], Comparison([Part("output", "relative_mse")])) is None


def test_padding_and_probabilities() -> None:
    rows = torch.stack([ROWS, torch.zeros_like(ROWS)], 1)
    mask = torch.tensor([[True, False]]).repeat(12, 1)
    assert certainty_note(Scaled(9.0), [Batch((rows,))], LOGITS) is None
    assert certainty_note(Scaled(9.0), [Batch((rows,), mask=mask)], LOGITS) is not None
    probabilities = Comparison([Part("output", "kl_divergence", probabilities=True)])
    assert certainty_note(Scaled(1.0), [Batch((ROWS,))], probabilities) is not None


def test_calibration_samples_that_are_easier_than_held_out_ones_are_told() -> None:
    torch.manual_seed(0)
    rows = ROWS * (1 + 0.1 * torch.rand(12, 1))
    easy, hard = certainty_of(Scaled(3.0), [Batch((rows,))], LOGITS), certainty_of(Scaled(1.5), [Batch((rows,))], LOGITS)
    note = easy.shift_note(hard)
    assert note is not None
    low, high = float(easy.by_sample.mean()), float(hard.by_sample.mean())
    assert f"(mean entropy of the reference {low:.2g} and {high:.2g} nats)" in note
    assert hard.shift_note(easy) is None
    assert easy.shift_note(certainty_of(Scaled(2.9), [Batch((rows,))], LOGITS)) is None
    assert easy.shift_note(certainty_of(Scaled(1.5), [Batch((rows[:3],))], LOGITS)) is None  # too few to say


def test_the_entropy_of_a_sample_leaves_padding_out() -> None:
    rows = torch.stack([ROWS, torch.zeros_like(ROWS)], 1)
    mask = torch.tensor([[True, False]]).repeat(12, 1)
    found = certainty_of(Scaled(3.0), [Batch((rows,), mask=mask)], LOGITS).by_sample
    assert torch.allclose(found, torch.full((12,), entropy(3.0), dtype=torch.float64), rtol=1e-5)
