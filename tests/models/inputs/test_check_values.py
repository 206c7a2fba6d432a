"""Data that a model accepts but that would spoil what is measured."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.errors import DataError
from mpq.models.inputs.check_values import check_labels, check_values
from mpq.models.sources.loaded import LoadedModel

NAN = float("nan")


def model(module: nn.Module | None = None, **config: Any) -> LoadedModel:
    return LoadedModel((module or nn.Identity()).eval(), "memory", "0", config=config)


def refused(batches: list[Batch], **config: Any) -> str:
    with pytest.raises(DataError) as caught:
        check_values(batches, model(**config))
    return str(caught.value)


def test_samples_with_nan_are_counted_over_all_batches() -> None:
    holed = torch.tensor([[1.0, NAN], [NAN, NAN], [1.0, 2.0]])
    assert refused([Batch((holed,)), Batch((torch.ones(2, 2),))]) == "2 of 5 samples hold NaN: remove or repair them"
    assert refused([Batch((holed,)), Batch((holed,))]) == "4 of 6 samples hold NaN: remove or repair them"
    assert refused([Batch((torch.tensor([NAN, 1.0]),))]) == "1 of 2 samples holds NaN: remove or repair them"
    assert refused([Batch((torch.full((1, 2), NAN),))]) == "1 of 1 sample holds NaN: remove or repair them"


def test_nan_is_looked_for_in_labels_and_along_the_axis_of_the_samples() -> None:
    assert refused([Batch((torch.ones(2, 3),), labels=torch.tensor([[1.0], [NAN]]))]).startswith("1 of 2 samples")
    first = torch.ones(3, 2)
    first[0, 1] = NAN
    assert refused([Batch((first,), axis=1)]).startswith("1 of 2 samples")


@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_whole_batch_is_one_sample_sparse_or_not() -> None:
    holed = torch.tensor([[1.0, NAN], [0.0, 2.0]])
    for tensor in (holed, holed.to_sparse(), holed.to_sparse_csr()):
        assert refused([Batch((torch.ones(2, 2), tensor), whole=True)]) == "1 of 1 sample holds NaN: remove or repair them"


def test_infinity_integers_and_tables_are_left_alone() -> None:
    mask = torch.tensor([[0.0, -torch.inf], [0.0, 0.0]])
    check_values([Batch((mask, torch.ones(2, dtype=torch.int64), torch.full((5,), NAN)))], model())


def test_a_token_id_beyond_the_vocabulary_is_named() -> None:
    ids = Batch((), {"input_ids": torch.tensor([[1, 7], [32, 0]])})
    expected = "token id 32 is out of range: the model's vocabulary has 32 tokens, 0 to 31"
    assert refused([Batch((), {"input_ids": torch.tensor([[31]])}), ids], vocab_size=32) == expected
    check_values([ids], model(vocab_size=33))
    check_values([ids], model())
    check_values([Batch((), {"input_ids": torch.tensor([[100.0]])})], model(vocab_size=32))


class Scores(nn.Module):
    """Five logits for each sample, or for each position."""

    def __init__(self, make: Any = lambda x: x) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor) -> Any:
        return self.make(x)


X = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("wrong", [5, -1, 255, 1000])
def test_a_label_that_is_no_class_is_named_wherever_it_stands(wrong: int) -> None:
    batches = [Batch((X,), labels=torch.tensor([0, 1, 2, 3])), Batch((X,), labels=torch.tensor([4, -100, wrong, 0]))]
    with pytest.raises(DataError) as caught:
        check_labels(batches, model(Scores()))
    expected = f"label {wrong} is out of range: the model gives 5 classes, 0 to 4; if it stands for 'no label', replace it with -100"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("labels", "make"),
    [
        (None, lambda x: x),
        (torch.tensor([0, 1, 2, 4]), lambda x: x),
        (torch.tensor([0, 1, -100, 4]), lambda x: x),
        (torch.tensor([0.0, 1.0, 2.0, 9.0]), lambda x: x),
        (torch.tensor([[9], [9], [9], [9]]), lambda x: x),
        (torch.tensor([9, 9, 9, 9]), lambda x: nn.functional.normalize(x)),
        (torch.tensor([9, 9, 9, 9]), lambda x: {"boxes": x, "other": x}),
    ],
)
def test_other_labels_are_left_alone(labels: Tensor | None, make: Any) -> None:
    check_labels([Batch((X,), labels=labels)], model(Scores(make)))


def test_labels_of_positions_fit_the_output_of_their_shape() -> None:
    batch = Batch((X,), labels=torch.tensor([[0, 1], [2, 3], [4, 5], [-100, 0]]))
    with pytest.raises(DataError, match=r"^label 5 is out of range: the model gives 5 classes, 0 to 4; "):
        check_labels([batch], model(Scores(lambda x: {"pooled": x[:, 0], "logits": x[:, None].expand(4, 2, 5)})))
