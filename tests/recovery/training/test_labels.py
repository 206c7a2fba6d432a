"""Right answers as a half of the loss."""

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.data.dataset import data_from_batches
from mpq.errors import DataError, UsageError
from mpq.models.running.comparison import Comparison, Part
from mpq.models.running.forward import Outputs
from mpq.models.running.metrics import KLDivergence, RelativeMSE
from mpq.models.running.reference import Reference
from mpq.recovery.training.labels import LabelMix, check_labels

LOGITS, OTHERS = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 1.0], [2.0, 0.0]])
X = torch.zeros(2, 3)


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 2).eval()


def test_half_is_the_divergence_and_half_the_likelihood_of_the_labels() -> None:
    metric, batch = KLDivergence(), Batch((X,), {}, torch.tensor([1, 0]))
    mixed = LabelMix(metric)
    found = mixed.errors(mixed.prepare_batch([LOGITS], batch), [OTHERS])
    divergence = metric.errors(metric.prepare([LOGITS]), [OTHERS])
    answers = torch.nn.functional.cross_entropy(OTHERS.double(), torch.tensor([1, 0]), reduction="none")
    assert torch.allclose(found, 0.5 * divergence + 0.5 * answers)
    assert float(divergence[1]) == 0
    assert mixed.name == "kl_divergence"


def test_probabilities_are_not_normalized_again_and_a_label_of_minus_100_counts_nothing() -> None:
    shares = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    mixed = LabelMix(Comparison([Part("output", "kl_divergence", probabilities=True)]))
    outputs = Outputs.of({"output": shares})
    prepared = mixed.prepare_batch(outputs, Batch((X,), {}, torch.tensor([1, -100])))
    assert torch.allclose(mixed.errors(prepared, outputs), torch.tensor([-0.5 * torch.tensor(0.75).log(), 0.0]).double())


def test_text_is_its_own_answer_and_a_sample_counts_once_however_long() -> None:
    tokens, logits = torch.tensor([[1, 0, 2]]), torch.tensor([[[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [9.0, 9.0, 9.0]]])
    mixed = LabelMix(KLDivergence())
    found = mixed.errors(mixed.prepare_batch([logits], Batch((tokens,))), [logits])
    answers = torch.nn.functional.cross_entropy(logits[0, :2], tokens[0, 1:])
    assert float(found) == pytest.approx(0.5 * float(answers))


def test_an_answer_that_the_unquantized_model_suppresses_counts_nothing() -> None:
    logits, batch = LOGITS.index_fill(-1, torch.tensor([1]), -1e9), Batch((X,), {}, torch.tensor([1, 0]))
    mixed = LabelMix(KLDivergence())
    assert mixed.errors(mixed.prepare_batch([logits], batch), [logits]).tolist() == [0, 0]  # the second answer is certain


def test_a_reference_hands_the_labels_on() -> None:
    module, batch = classifier(), Batch((torch.ones(2, 3),), {}, torch.tensor([1, 0]))
    reference = Reference(module, data_from_batches([batch]), LabelMix(KLDivergence()))
    answers = torch.nn.functional.cross_entropy(cast("Tensor", module(batch.args[0])), torch.tensor([1, 0]), reduction="none")
    assert torch.allclose(reference.errors({}), 0.5 * answers.detach().double())


def test_samples_without_fitting_labels_are_refused_before_training() -> None:
    module = classifier()
    labelled, plain = Batch((torch.ones(2, 3),), {}, torch.tensor([1, 0])), Batch((torch.ones(4, 3),))
    check_labels(module, data_from_batches([labelled]), KLDivergence())
    with pytest.raises(DataError, match=r": no labels that fit an output of \[4, 2\]: give pairs of inputs and labels"):
        check_labels(module, data_from_batches([plain]), KLDivergence())
    with pytest.raises(DataError, match=r": no labels that fit an output of \[2, 2\]"):
        check_labels(module, data_from_batches([Batch((torch.ones(2, 3),), {}, torch.tensor([2, 0]))]), KLDivergence())
    with pytest.raises(DataError, match=r": only some of the 6 samples have labels: label all of them, or none$"):
        check_labels(module, data_from_batches([labelled, plain]), KLDivergence())
    with pytest.raises(DataError, match=r"^labels belong to a batch$"):
        LabelMix(KLDivergence()).prepare([LOGITS])


def test_outputs_that_are_no_classes_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"^--labels needs a model that returns logits or probabilities, and this plan compares .* relative_mse$"
    ):
        LabelMix(RelativeMSE())
