from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from mpq.data.batch import LABEL_KEYS, Batch
from mpq.data.dataset import data_from_batches
from mpq.data.interpret import POSITIONAL_KEYS, interpretations, readings
from mpq.errors import DataError

X, Y = torch.zeros(4, 2), torch.arange(4)


def test_labels_of_a_dict_are_not_given_to_the_model() -> None:
    (batch,) = data_from_batches({"a": torch.zeros(4, 2), "b": torch.zeros(4), "labels": torch.arange(4)}).batches
    assert list(batch.kwargs) == ["a", "b"]
    assert batch.labels is not None


def test_one_tensor_under_a_common_name_is_positional() -> None:
    (batch,) = data_from_batches({"images": torch.zeros(4, 2), "y": torch.arange(4)}).batches
    assert (len(batch.args), batch.kwargs) == (1, {})


def test_floats_at_the_end_of_a_tuple_are_inputs() -> None:
    (batch,) = data_from_batches((torch.zeros(4, 2), torch.zeros(4))).batches
    assert (len(batch.args), batch.labels) == (2, None)


def test_an_element_that_is_no_batch_is_refused_by_its_type() -> None:
    with pytest.raises(DataError, match=r"^str is not a batch: give a tensor, a tuple of tensors, or a dict of tensors$"):
        data_from_batches(["a", "b"])


def told(batch: Batch) -> tuple[list[str], list[str], bool]:
    """Positional arguments, names, and whether there are labels."""
    return [type(arg).__name__ for arg in batch.args], list(batch.kwargs), batch.labels is not None


def all_told(item: Any) -> list[tuple[list[str], list[str], bool]]:
    return [told(batch) for batch in readings(item)]


T = "Tensor"


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (X, [([T], [], False)]),
        ((X,), [([T], [], False)]),
        ((X, Y), [([T], [], True), ([T, T], [], False)]),
        ([X, Y], [([T], [], True), ([T, T], [], False), (["list"], [], False)]),
        ([{"image": X}], [(["dict"], [], False), (["list"], [], False)]),
        ((X, Y.view(4, 1)), [([T, T], [], False), ([T], [], True)]),
        ((X, Y[:3]), [([T, T], [], False)]),
        ((X, Y > 1), [([T, T], [], False)]),
        ((X, X), [([T, T], [], False)]),
        ((X, X, Y), [([T, T], [], True), ([T, T, T], [], False)]),
        ((Y,), [([T], [], False)]),
        ((X, "mode"), [([T, "str"], [], False)]),
        ({"a": X}, [([], ["a"], False), ([T], [], False)]),
        ({"x": X}, [([T], [], False), ([], ["x"], False)]),
        ({"a": X, "b": X}, [([], ["a", "b"], False)]),
        ({"a": X, "labels": Y}, [([], ["a"], True), ([T], [], True), ([], ["a", "labels"], False)]),
        ({"a": X, "b": X, "labels": Y}, [([], ["a", "b"], True), ([], ["a", "b", "labels"], False)]),
        ({"labels": Y}, [([], ["labels"], False)]),
        ({"a": X, "labels": "none"}, [([], ["a", "labels"], False)]),
    ],
)
def test_the_readings_of_an_element_the_likeliest_first(item: Any, expected: list[Any]) -> None:
    assert all_told(item) == expected


@pytest.mark.parametrize("name", LABEL_KEYS)
def test_labels_are_known_by_name(name: str) -> None:
    assert all_told({"a": X, "b": X, name: Y})[0] == ([], ["a", "b"], True)


def test_of_several_names_of_labels_the_first_counts() -> None:
    first = next(readings({"a": X, "y": Y + 1, "label": Y}))
    assert first.labels is Y
    assert list(first.kwargs) == ["a", "y"]


@pytest.mark.parametrize("name", POSITIONAL_KEYS)
def test_a_tensor_alone_under_a_common_name_is_positional_first(name: str) -> None:
    assert all_told({name: X})[0] == ([T], [], False)


def test_a_batch_is_itself() -> None:
    batch = Batch((X,), {"a": X}, Y)
    assert list(readings(batch)) == [batch]


@pytest.mark.parametrize(("item", "name"), [(3, "int"), (None, "NoneType"), ((), "tuple"), ({}, "dict"), ([], "list"), ("ab", "str")])
def test_anything_else_is_no_batch(item: Any, name: str) -> None:
    with pytest.raises(DataError) as error:
        list(readings(item))
    assert str(error.value) == f"{name} is not a batch: give a tensor, a tuple of tensors, or a dict of tensors"


def sizes(content: Any, **limits: Any) -> list[list[int]]:
    return [[batch.size for batch in batches] for batches in interpretations(content, **limits)]


def test_a_list_of_tensors_is_batches_first_and_one_batch_second() -> None:
    assert sizes([X, X]) == [[4, 4], [4], [4]]  # at last as one argument that is a list


def test_a_tuple_of_tensors_is_one_batch_first() -> None:
    found = list(interpretations((X, X)))
    assert [[len(batch.args) for batch in batches] for batches in found] == [[2], [1, 1], [1]]


def test_the_last_of_a_tuple_may_be_targets_of_real_numbers_if_nothing_else_fits() -> None:
    (*_, last) = interpretations((X, X[:, :1]))
    assert [(len(batch.args), batch.labels is not None) for batch in last] == [(1, True)]
    found = list(interpretations([(X, X), (X, X)]))
    assert [(len(batches), len(batches[0].args), batches[1].labels is not None) for batches in found[:2]] == [(2, 2, False), (2, 1, True)]


def test_a_list_of_tensors_of_unlike_dtypes_and_as_many_samples_is_one_batch_first() -> None:
    found = list(interpretations([X, Y]))
    assert [[len(batch.args) for batch in batches] for batches in found] == [[1], [2], [1], [1, 1]]
    assert [len(batches) for batches in interpretations([X, torch.zeros(3)])] == [2, 1, 1]


def test_pairs_in_a_list_are_batches_with_labels_in_every_reading_of_all_of_them() -> None:
    found = list(interpretations([(X, Y), (X, Y)]))
    assert [[told(batch) for batch in batches] for batches in found[:2]] == [2 * [([T], [], True)], 2 * [([T, T], [], False)]]


def test_readings_that_only_some_elements_have_are_left_out() -> None:
    assert [len(batch.args) for batch in next(interpretations([(X, Y), (X, X)]))] == [1, 2]


def test_an_iterable_is_read_up_to_the_limit_and_no_further() -> None:
    taken = []

    def endless() -> Iterator[Tensor]:
        while True:
            taken.append(1)
            yield X

    assert sizes(endless(), limit=3) == [[4, 4, 4]]
    assert len(taken) == 3


@pytest.mark.parametrize(("content", "name"), [(3, "int"), (None, "NoneType"), (1.5, "float")])
def test_what_cannot_be_iterated_is_not_data(content: Any, name: str) -> None:
    with pytest.raises(DataError) as error:
        list(interpretations(content))
    assert str(error.value) == f"data cannot be a {name}: give a tensor, a tuple, a dict, or a list of these"


def test_nothing_is_refused_and_so_is_what_no_reading_takes() -> None:
    nothing: list[Any] = [[], (), iter(())]
    for empty in nothing:
        with pytest.raises(DataError, match=r"^the data holds no samples: give at least one$"):
            list(interpretations(empty))
    with pytest.raises(DataError, match=r"^int is not a batch: "):
        list(interpretations([1, 2]))
