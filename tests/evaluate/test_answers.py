import math

import pytest
import torch
from torch import Tensor

from mpq.data.batch import Batch
from mpq.evaluate.answers import Answers


def seeded(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def counted(output: Tensor, batch: Batch, *more: tuple[Tensor, Batch], probabilities: bool = False) -> Answers:
    answers = Answers(probabilities=probabilities)
    for one, of in ((output, batch), *more):
        answers.add(one, of)
    return answers


def naive(rows: list[list[float]], targets: list[int]) -> tuple[int, int, float]:
    """Answers, right ones, and the sum of the negative log-likelihoods, row by row."""
    right, loss = 0, 0.0
    for row, target in zip(rows, targets, strict=True):
        right += int(max(range(len(row)), key=row.__getitem__) == target)
        loss -= row[target] - math.log(sum(math.exp(value) for value in row))
    return len(targets), right, loss


def check(found: Answers, rows: Tensor, targets: list[int]) -> None:
    answers, right, loss = naive(rows.tolist(), targets)
    assert (found.answers, found.right) == (answers, right)
    assert found.loss == pytest.approx(loss, rel=1e-5)


X = torch.zeros(4, 2)


def test_labels_are_the_answers_and_minus_100_is_none() -> None:
    logits, labels = seeded(4, 5), torch.tensor([1, -100, 0, 4])
    found = counted(logits, Batch((X,), {}, labels))
    check(found, logits[[0, 2, 3]], [1, 0, 4])
    assert not found.language


def test_batches_add_up() -> None:
    first, second = seeded(4, 5), seeded(2, 5)
    found = counted(first, Batch((X,), {}, torch.tensor([0, 1, 2, 3])), (second, Batch((X[:2],), {}, torch.tensor([4, 4]))))
    check(found, torch.cat([first, second]), [0, 1, 2, 3, 4, 4])


def test_probabilities_are_not_normalized_again_and_zero_has_a_finite_loss() -> None:
    output = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    found = counted(output, Batch((X[:2],), {}, torch.tensor([1, 1])), probabilities=True)
    assert (found.answers, found.right) == (2, 1)
    assert found.loss == pytest.approx(-math.log(0.75) - math.log(1e-30))


def test_without_labels_a_language_model_is_asked_for_its_next_tokens() -> None:
    logits, tokens = seeded(2, 4, 7), torch.tensor([[1, 2, 3, 6], [0, 5, 5, 1]])
    for batch in (Batch((tokens,)), Batch((), {"input_ids": tokens})):
        found = counted(logits, batch)
        check(found, logits[:, :-1].reshape(-1, 7), [2, 3, 6, 5, 5, 1])
        assert found.language


def test_a_next_token_counts_where_both_positions_are_data() -> None:
    logits, tokens = seeded(2, 4, 7), torch.tensor([[1, 2, 3, 6], [0, 5, 5, 1]])
    mask = torch.tensor([[True, True, True, False], [False, True, True, True]])
    found = counted(logits, Batch((), {"input_ids": tokens}, mask=mask))
    check(found, torch.stack([logits[0, 0], logits[0, 1], logits[1, 1], logits[1, 2]]), [2, 3, 5, 1])


def test_labels_that_repeat_the_tokens_are_those_of_the_next_position() -> None:
    logits, tokens = seeded(1, 4, 7), torch.tensor([[1, 2, 3, 6]])
    labels = torch.tensor([[-100, -100, 3, 6]])
    found = counted(logits, Batch((), {"input_ids": tokens}, labels))
    check(found, logits[0, 1:3], [3, 6])


def test_labels_of_positions_are_the_answers_at_those_positions_without_padding() -> None:
    logits, labels = seeded(2, 3, 5), torch.tensor([[0, 1, 2], [3, 4, -100]])
    batch = Batch((seeded(2, 3, 8),), {}, labels, mask=torch.tensor([[True, True, False], [True, True, True]]))
    check(counted(logits, batch), torch.stack([logits[0, 0], logits[0, 1], logits[1, 0], logits[1, 1]]), [0, 1, 3, 4])


@pytest.mark.parametrize(
    ("output", "batch"),
    [
        (seeded(4, 5), Batch((X,))),
        (seeded(4, 5), Batch((X,), {}, seeded(4))),
        (seeded(2, 4, 7), Batch((torch.zeros(2, 5, dtype=torch.int64),))),
        (seeded(2, 1, 7), Batch((torch.zeros(2, 1, dtype=torch.int64),))),
        (seeded(2, 4, 7), Batch((torch.full((2, 4), 7),))),
        (seeded(2, 4, 7), Batch((torch.zeros(2, 4),))),
        (seeded(2, 7), Batch((torch.zeros(2, 4, dtype=torch.int64),))),
    ],
    ids=["no labels", "labels of another kind", "other length", "one token", "a token beyond the classes", "no tokens", "one output"],
)
def test_where_there_is_no_answer_nothing_is_counted(output: Tensor, batch: Batch) -> None:
    found = counted(output, batch)
    assert (found.answers, found.right, found.loss, found.language) == (0, 0, 0.0, False)


def test_labels_that_are_all_minus_100_count_nothing() -> None:
    assert counted(seeded(4, 5), Batch((X,), {}, torch.full((4,), -100))).answers == 0


def test_half_precision_is_summed_in_double() -> None:
    output = torch.zeros(4, 3, dtype=torch.bfloat16)
    found = counted(output, Batch((X,), {}, torch.zeros(4, dtype=torch.int64)))
    assert found.loss == pytest.approx(4 * math.log(3), rel=1e-7)


@pytest.mark.parametrize("mask", [-torch.inf, torch.finfo(torch.float32).min, -1e9, -1e4])
def test_the_loss_leaves_out_answers_that_the_reference_suppresses_and_accuracy_counts_them_as_wrong(mask: float) -> None:
    logits, labels = seeded(4, 5), torch.tensor([1, 2, 0, 4])
    reference = logits.index_fill(-1, torch.tensor([2]), mask)
    answers = Answers(probabilities=False)
    answers.add(reference, Batch((X,), {}, labels), reference=reference)
    _, right, loss = naive(logits[:, [0, 1, 3, 4]][[0, 2, 3]].tolist(), [1, 0, 3])
    assert (answers.answers, answers.suppressed, answers.right) == (4, 1, right)
    assert answers.mean_loss == pytest.approx(loss / 3, rel=1e-5)


def test_a_class_that_only_the_quantized_model_suppresses_costs_what_it_gives() -> None:
    logits = torch.zeros(2, 3, 5)
    output = logits.index_fill(-1, torch.tensor([1]), -1e9)
    tokens = torch.ones(2, 3, dtype=torch.int64)
    answers = Answers(probabilities=False)
    answers.add(output, Batch((tokens,)), reference=logits)
    assert (answers.answers, answers.suppressed) == (4, 0)
    assert answers.mean_loss == pytest.approx(1e9)
    assert answers.perplexity == math.inf
