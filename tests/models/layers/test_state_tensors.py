import pytest
import torch
from torch import nn

from mpq.errors import ModelError
from mpq.models.layers.state_tensors import aliases_of, state_of, tied_names
from tests.models.small import tied


def test_tied_names_stand_together_and_the_first_is_canonical() -> None:
    state = state_of(tied())
    assert list(tied_names(state)) == [("embedding.weight", "head.weight"), ("body.weight",), ("body.bias",)]
    assert aliases_of(state) == {"head.weight": "embedding.weight"}


def test_tensors_of_one_storage_and_unlike_shape_are_not_tied() -> None:
    table = torch.randn(4, 6)
    state = {"a": table, "b": table.view(6, 4), "c": table.t(), "d": table[:2], "e": table[:], "f": table.view(torch.int32)}
    assert list(tied_names(state)) == [("a", "e"), ("b",), ("c",), ("d",), ("f",)]


def test_empty_tensors_are_never_tied() -> None:
    assert aliases_of({"a": torch.zeros(0), "b": torch.zeros(0)}) == {}


def test_the_state_is_not_copied() -> None:
    module = nn.Linear(2, 2)
    assert state_of(module)["weight"].data_ptr() == module.weight.data_ptr()


class Extra(nn.Module):
    def get_extra_state(self) -> int:
        return 3


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(ModelError) as error:
        state_of(Extra())
    assert str(error.value) == "'_extra_state' in the state dict is not a tensor but int: mpq stores tensors only"
