"""What outputs should have been; `tests/evaluate/test_answers.py` has the cases one by one."""

import torch

from mpq.data.batch import Batch
from mpq.models.running.targets import targets


def test_labels_are_answers_if_they_fit_and_next_tokens_are_those_of_text() -> None:
    logits = torch.zeros(2, 3)
    output, wanted, kept = targets(logits, Batch((torch.zeros(2, 4),), {}, torch.tensor([2, -100])))
    assert output is logits
    assert wanted is not None
    assert (wanted.tolist(), kept.tolist()) == ([2, -100], [True, False])
    assert targets(logits, Batch((torch.zeros(2, 4),)))[1] is None
    tokens = torch.tensor([[1, 2, 0]])
    output, wanted, kept = targets(torch.zeros(1, 3, 3), Batch((tokens,)))
    assert wanted is not None
    assert (output.shape, wanted.tolist(), kept.tolist()) == ((1, 2, 3), [[2, 0]], [[True, True]])
