import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpq.data.batch import Batch, regroup
from mpq.data.dataset import make_data
from mpq.errors import DataError


def test_size_is_the_leading_dimension_of_the_first_tensor() -> None:
    assert Batch((), {"flag": True, "scale": torch.tensor(2.0), "x": torch.zeros(5, 3)}).size == 5


def test_a_batch_without_tensors_is_refused() -> None:
    with pytest.raises(DataError, match=r"^a batch holds no tensor of samples: give tensors whose first dimension counts the samples$"):
        Batch((1, "two"))


def test_labels_of_another_number_are_refused() -> None:
    with pytest.raises(DataError, match=r"^4 samples come with labels of shape \[3\]: give one label per sample$"):
        Batch((torch.zeros(4, 2),), {}, torch.zeros(3))


def test_select_takes_rows_of_nested_tensors_and_labels_and_leaves_the_rest_whole() -> None:
    table = torch.ones(7)
    batch = Batch((torch.arange(4), (torch.arange(4) * 10, table)), {"mode": "a"}, torch.arange(4) * 100)
    chosen = batch.select([3, 1])
    assert chosen.args[0].tolist() == [3, 1]
    assert chosen.args[1][0].tolist() == [30, 10]
    assert chosen.args[1][1] is table
    assert chosen.kwargs == {"mode": "a"}
    assert chosen.labels is not None
    assert chosen.labels.tolist() == [300, 100]


def test_a_shared_table_of_one_row_stays_one_row_when_single_samples_are_joined() -> None:
    data = make_data([Batch((torch.randn(5, 3), torch.ones(1, 3)))], source="memory")
    joined = data.rebatch(1).rebatch(5).batches[0]
    assert [list(tensor.shape) for tensor in joined.tensors] == [[5, 3], [1, 3]]


def rows(count: int, start: int = 0, width: int = 2) -> torch.Tensor:
    return torch.arange(start, start + count).float().unsqueeze(1).expand(-1, width).contiguous()


def test_the_number_of_samples_is_that_of_the_first_tensor_with_dims() -> None:
    assert Batch((torch.tensor(1.0), [torch.zeros(4), torch.zeros(7)])).size == 4


def test_labels_of_positions_are_known_among_the_inputs_too_and_classes_of_samples_are_inputs() -> None:
    ids, labels = torch.zeros(4, 6), torch.ones(4, 3, dtype=torch.long)
    assert Batch((), {"input_ids": ids, "labels": labels}).known_labels is labels
    assert Batch((), {"input_ids": ids, "labels": labels}, labels + 1).answers is not labels
    assert Batch((), {"x": ids, "y": labels[:, 0]}).known_labels is None
    assert Batch((), {"x": ids, "labels": labels.float()}).known_labels is None


@pytest.mark.parametrize("labels", [torch.tensor(1), torch.zeros(0)])
def test_labels_are_one_for_each_sample(labels: torch.Tensor) -> None:
    with pytest.raises(DataError, match=r"^4 samples come with labels of shape "):
        Batch((torch.zeros(4, 2),), {}, labels)


@pytest.mark.parametrize("shape", [(4,), (3, 2), (0, 2)])
def test_a_mask_is_samples_by_positions(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError) as error:
        Batch((torch.zeros(4, 2),), mask=torch.ones(shape))
    assert str(error.value) == f"4 samples come with a mask of shape {list(shape)}: give [samples, positions]"


def test_a_mask_becomes_true_and_false_and_is_cut_like_the_samples() -> None:
    batch = Batch((torch.zeros(3, 2),), mask=torch.tensor([[1, 0], [1, 1], [0, 2]]))
    assert batch.mask is not None
    assert batch.mask.tolist() == [[True, False], [True, True], [False, True]]
    for cut in (batch.select([2, 0]), batch.narrow(1, 2)):
        assert cut.mask is not None
        assert cut.mask.dtype == torch.bool
    assert batch.select([2, 0]).mask.tolist() == [[False, True], [True, False]]  # type: ignore[union-attr]


def test_what_holds_a_row_for_each_sample_is_found_by_the_leading_dim_or_given() -> None:
    args = (torch.zeros(3, 2), torch.zeros(4, 2), torch.tensor(1.0), "text")
    assert Batch(args, {"x": torch.zeros(3)}, torch.zeros(3)).sampled == (True, False, False, False, True, True)
    kept = Batch((torch.zeros(3, 2), torch.zeros(3, 3)), sampled=(True, False, False))
    assert [list(one.shape) for one in kept.select([0]).tensors] == [[1, 2], [3, 3]]


def test_the_shape_of_a_sample_is_told_without_labels() -> None:
    assert Batch((torch.zeros(5, 3, 32),), {}, torch.zeros(5)).shapes == "[3, 32]"
    assert Batch((), {"ids": torch.zeros(2, 16), "mask": torch.zeros(2, 16), "flag": True}).shapes == "ids [16], mask [16]"
    assert Batch((torch.zeros(5),)).shapes == "[]"


def test_shapes_in_containers_are_counted() -> None:
    batch = Batch(([{"image": torch.zeros(3, 4)}, {"image": torch.zeros(3, 4)}],), {"more": [torch.zeros(3, 1)], "s": "x"}, whole=True)
    assert batch.shapes == "2 times [3, 4], more [3, 1]"


def test_narrow_gives_views() -> None:
    batch = Batch((rows(5),), {}, torch.arange(5))
    cut = batch.narrow(1, 3)
    assert cut.args[0].data_ptr() == batch.args[0][1:].data_ptr()
    assert cut.labels is not None
    assert cut.labels.tolist() == [1, 2, 3]


def test_a_dtype_is_for_floating_point_alone() -> None:
    batch = Batch((rows(3), torch.arange(3), True), {"x": rows(3)}, torch.arange(3), mask=torch.ones(3, 2))
    found = batch.in_dtype(torch.bfloat16)
    assert [one.dtype for one in found.tensors] == [torch.bfloat16, torch.int64, torch.bfloat16]
    assert (found.args[2], found.sampled) == (True, batch.sampled)
    assert torch.equal(found.mask, batch.mask)  # type: ignore[arg-type]


def test_a_batch_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Batch((rows(1),)).args = ()  # type: ignore[misc]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_regrouping_keeps_every_sample_in_order_and_fills_all_batches_but_the_last(sizes: list[int], size: int) -> None:
    whole = Batch((rows(sum(sizes)),), {}, torch.arange(sum(sizes)))
    given = [whole.narrow(sum(sizes[:number]), count) for number, count in enumerate(sizes)]
    found = regroup(given, size)
    assert [int(label) for batch in found if batch.labels is not None for label in batch.labels] == list(range(sum(sizes)))
    assert [int(row[0]) for batch in found for row in batch.args[0]] == list(range(sum(sizes)))
    assert [batch.size for batch in found[:-1]] == [size] * (len(found) - 1)
    assert 1 <= found[-1].size <= size


@pytest.mark.parametrize(
    "other",
    [
        Batch((rows(2).double(),)),
        Batch((rows(2, width=3),)),
        Batch((rows(2), True)),
        Batch((), {"x": rows(2)}),
        Batch((rows(2),), {}, torch.zeros(2)),
        Batch((rows(2),), mask=torch.ones(2, 2)),
        Batch((rows(2), torch.ones(5))),
    ],
    ids=["dtype", "shape", "another argument", "a name", "labels", "mask", "table"],
)
def test_samples_that_are_not_alike_start_a_new_batch(other: Batch) -> None:
    first = Batch((rows(2),))
    assert [batch.size for batch in regroup([first, other, other], 8)] == [2, 4]


@pytest.mark.parametrize(("table", "sizes"), [(torch.ones(5), [4]), (torch.zeros(5), [2, 2])])
def test_a_shared_table_must_be_the_same_to_be_shared(table: torch.Tensor, sizes: list[int]) -> None:
    assert [batch.size for batch in regroup([Batch((rows(2), torch.ones(5))), Batch((rows(2), table))], 8)] == sizes


def test_masks_are_joined() -> None:
    masks = [torch.tensor([[True, False]]), torch.tensor([[False, True]])]
    (joined,) = regroup([Batch((rows(1),), mask=mask) for mask in masks], 2)
    assert joined.mask is not None
    assert joined.mask.tolist() == [[True, False], [False, True]]


def test_nothing_is_regrouped_to_nothing() -> None:
    assert regroup([], 4) == ()
