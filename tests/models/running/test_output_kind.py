"""Whether an output is logits, with the reason."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.models.running import output_kind
from mpq.models.running.forward import forward, named
from mpq.models.running.output_kind import labels_fit, out_of_range
from tests.models.running.test_forward import Returns


def kind_of(output: Any, labels: Tensor | None = None) -> tuple[str, str]:
    module, batch = Returns(output), Batch((torch.zeros(16, 3),), {}, labels)
    outputs = named(forward(module, batch))
    name, first = next(iter(outputs.items()))
    found = output_kind.kind_of(name, first, batch.labels, alone=len(outputs) == 1, named=name != "output")
    return found.kind, found.reason


SCORES = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("output", "kind", "reason"),
    [
        ({"logits": SCORES}, "logits", "the output is named logits (5 classes)"),
        (SCORES, "logits", "the output looks like logits of 5 classes; use --metric relative_mse if it is not"),
        (SCORES.softmax(-1), "probabilities", "every row of the output sums to one: probabilities of 5 classes"),
        ({"last_hidden_state": SCORES}, "other", "the output is last_hidden_state, not logits"),
        (nn.functional.normalize(SCORES), "other", "every row of the output has norm one: an embedding, not logits"),
        (nn.functional.layer_norm(SCORES, [5]), "other", "all rows of the output have the same norm: normalised features, not logits"),
        (SCORES.relu(), "other", "the output is never negative: features or independent probabilities, not logits"),
        (SCORES[:, :1], "other", "an output of shape [16, 1] has no classes along its last dimension"),
        (SCORES.reshape(16, 5, 1, 1), "other", "an output of shape [16, 5, 1, 1] has no classes along its last dimension"),
        ((SCORES, SCORES), "other", "one of several outputs, and not named logits"),
    ],
)
def test_logits_are_told_from_other_outputs_with_a_reason(output: Any, kind: str, reason: str) -> None:
    assert kind_of(output) == (kind, reason)


def test_labels_that_index_the_output_prove_logits() -> None:
    reason = "the labels are integers below 5, the last dimension of the output"
    assert kind_of(SCORES.relu(), torch.arange(16) % 5) == ("logits", reason)
    assert kind_of(SCORES.relu(), torch.arange(16) % 6)[0] == "other"


def test_labels_of_real_numbers_are_no_classes_unless_they_are_probabilities() -> None:
    reason = "the labels are numbers of the output's shape, not one class for each row"
    assert kind_of(SCORES, SCORES + 1) == ("other", reason)
    assert kind_of({"logits": SCORES}, (SCORES > 0).float()) == ("other", reason)
    assert kind_of(SCORES, nn.functional.one_hot(SCORES.argmax(-1), 5).float())[0] == "logits"


@pytest.mark.parametrize("name", ["boxes", "pred_boxes", "image_embeds", "Embedding", "features", "keypoints", "sample", "log_var"])
def test_names_say_that_an_output_is_not_logits(name: str) -> None:
    assert kind_of({name: SCORES}) == ("other", f"the output is named {name}, not logits")
    assert kind_of({f"{name}_logits": SCORES})[0] == "logits"


def test_one_of_several_outputs_is_logits_by_its_name() -> None:
    found = output_kind.kind_of("head.cls_logits", SCORES, None, alone=False, named=True)
    assert (found.kind, found.reason) == ("logits", "the output is named cls_logits (5 classes)")


def test_a_name_without_meaning_says_nothing() -> None:
    found = output_kind.kind_of("logits", SCORES.relu(), None, alone=True, named=False)
    assert found.kind == "other"


@pytest.mark.parametrize("low", [-1e4, -math.inf])
def test_suppressed_classes_say_nothing_of_the_others(low: float) -> None:
    hidden = torch.full((16, 2), low)
    assert kind_of(torch.cat([SCORES, hidden], 1))[0] == "logits"
    assert kind_of(torch.cat([SCORES.relu(), hidden], 1))[0] == "other"
    assert kind_of(torch.cat([nn.functional.normalize(SCORES), hidden], 1))[1].startswith("every row of the output has norm one")


def test_few_rows_of_one_norm_may_be_chance() -> None:
    rows = nn.functional.layer_norm(SCORES, [5])
    assert output_kind.kind_of("0", rows[:7], None, alone=True, named=False).kind == "logits"
    assert output_kind.kind_of("0", rows[:8], None, alone=True, named=False).kind == "other"


@pytest.mark.parametrize(
    ("labels", "fits"),
    [
        ([0, 4, 2], True),
        ([0, -100, 2], True),
        ([0, 5, 2], False),
        ([0, -1, 2], False),
        ([0.0, 1.0, 2.0], False),
        ([True, False, True], False),
        ([[0], [1], [2]], False),
        (None, False),
    ],
)
def test_labels_fit_where_they_index_the_classes(labels: list[Any] | None, fits: bool) -> None:
    assert labels_fit(torch.zeros(3, 5), None if labels is None else torch.tensor(labels)) == fits


def test_labels_out_of_range_are_found_one_by_one() -> None:
    assert out_of_range(torch.tensor([-101, -100, -1, 0, 4, 5]), 5).tolist() == [True, False, True, False, False, True]
