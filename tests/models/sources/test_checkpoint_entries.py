"""Which dicts of tensors a checkpoint holds."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from mpq.models.sources.checkpoint_entries import WHOLE, Entry, find_entries

W = torch.ones(2)


def found(content: object) -> dict[str, list[str]]:
    return {entry.key: list(entry.state) for entry in find_entries(content)}


def test_the_file_itself_and_dicts_inside_it_are_entries() -> None:
    assert found({"w": W}) == {"": ["w"]}
    assert found({"epoch": 3, "model": {"w": W, "n": 1}}) == {"model": ["w", "n"]}
    assert found({"w": W, "ema": {"w": W}}) == {"": ["w"], "ema": ["w"]}
    assert found({"a": {"b": {"c": {"w": W}}}}) == {"a.b.c": ["w"]}
    assert WHOLE == "."


def test_no_more_than_three_keys_lead_to_an_entry() -> None:
    assert found({"a": {"b": {"c": {"d": {"w": W}}}}}) == {}


@pytest.mark.parametrize("content", [W, [W], {}, {"a": 1}, {0: W}, {"a": {0: W}}, {"a": [W]}, None])
def test_what_is_no_dict_of_text_and_tensors_is_no_entry(content: object) -> None:
    assert find_entries(content) == []


def test_a_trusted_module_is_read_by_its_state_dict() -> None:
    assert found({"net": nn.Linear(2, 3)}) == {"net": ["weight", "bias"]}
    assert found({"w": W, "net": nn.Linear(2, 3)}) == {"": ["w"], "net": ["weight", "bias"]}


def test_the_versions_of_a_state_dict_and_the_state_of_modules_stay_with_it() -> None:
    state: Any = OrderedDict({"w": W, "x._extra_state": {"scale": 2}})
    state._metadata = {"": {"version": 1}}
    assert find_entries(state) == [Entry("", state)]
    assert find_entries(state)[0].state is state
