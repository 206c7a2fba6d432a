"""Lists with one value for each sample: how they are found, and what their tensors become."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mpq.errors import ModelError
from mpq.models.running.sample_lists import by_sample, is_in_list, may_have_lists, same_shapes, sample_lists, stacked, without_place


@pytest.mark.parametrize(
    ("together", "alone", "lists"),
    [
        (["0.box", "0.score", "1.box", "1.score"], ["0.box", "0.score"], ("",)),
        (["0", "1"], ["0"], ("",)),
        (["logits", "found.0", "found.1"], ["logits", "found.0"], ("found",)),
        (["levels.0.0", "levels.0.1", "levels.1.0", "levels.1.1"], ["levels.0.0", "levels.1.0"], ("levels.0", "levels.1")),
        (["0", "1"], ["0", "1"], ()),  # two outputs for one sample too
        (["0.0", "0.1", "1.0", "1.1"], ["0.0"], ("",)),  # the outer list is that of the samples
        (["output"], ["output"], ()),
        (["a.0", "a.1", "a.2"], ["a.0"], ()),
    ],
)
def test_a_list_of_samples_has_as_many_entries_as_there_are_samples(together: list[str], alone: list[str], lists: tuple[str, ...]) -> None:
    assert sample_lists(together, [alone, alone]) == lists


def test_outputs_of_one_sample_may_have_lists_if_a_container_has_one_entry() -> None:
    single = (["output"], ["0", "1"], ["a", "b.c"], ["0"], ["a.0.x", "a.0.y"], ["a.1"])
    assert [may_have_lists(names) for names in single] == [False, False, False, True, True, False]


@pytest.mark.parametrize(
    ("name", "names", "samples", "expected"),
    [
        ("1.boxes", ["0.boxes", "1.boxes"], 2, True),
        ("found.0", ["found.0", "found.1", "logits"], 2, True),
        ("logits", ["found.0", "found.1", "logits"], 2, False),
        ("found.0", ["found.0", "found.1"], 3, False),
        ("0", ["0"], 1, False),
        ("output", ["output"], 1, False),
        ("a.1.x", ["a.0.x", "a.1.x", "b"], 2, True),
    ],
)
def test_an_output_is_in_a_list_if_its_name_counts_several_samples(name: str, names: list[str], samples: int, *, expected: bool) -> None:
    assert is_in_list(name, names, samples) == expected


def test_the_place_of_a_sample_leaves_the_name() -> None:
    assert [without_place(name, ["found", "more.1"]) for name in ("found.3.box", "found.0", "foundation.0", "more.1.2.x")] == [
        ("found.box", 3),
        ("found", 0),
        ("foundation.0", None),
        ("more.1.x", 2),
    ]
    assert [without_place(name, [""]) for name in ("2", "2.box")] == [("output", 2), ("box", 2)]


def test_tensors_are_stacked_in_the_order_of_the_samples() -> None:
    outputs = {"a.10": torch.tensor(10.0), "logits": torch.ones(2), **{f"a.{place}": torch.tensor(float(place)) for place in range(10)}}
    found = stacked(outputs, ["a"], 11)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {"a": [float(place) for place in range(11)], "logits": [1, 1]}
    assert [float(one) for one in by_sample(outputs, ["a"])["a"]] == [float(place) for place in range(11)]
    assert not same_shapes(by_sample(outputs, ["a"])["a"], 2)


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ([torch.ones(2), torch.ones(3)], "shape for each of 2 samples, but it has 2, of shapes [2], [3]"),
        ([torch.ones(3, 4)] * 5, "shape for each of 2 samples, but it has 5, of shape [3, 4]"),
        (
            [torch.ones(2), torch.ones(2).half()],
            "shape and dtype for each of 2 samples, but it has 2, of shape [2] and dtypes float32, float16",
        ),
    ],
)
def test_unlike_tensors_are_refused_by_name_with_the_ways_out(tensors: list[Tensor], told: str) -> None:
    with pytest.raises(ModelError) as error:
        stacked({f"a.{place}": one for place, one in enumerate(tensors)}, ["a"], 2)
    assert str(error.value) == (
        f"output 'a' must have one tensor of the same {told}: wrap the model to return one tensor for all samples, such as its scores "
        "before detections are selected; if the shapes follow from the inputs, --batch-size 1 compares the samples one at a time"
    )
