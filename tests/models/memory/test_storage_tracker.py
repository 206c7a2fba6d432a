"""What is known about storages: the weights in them, and whether they depend on the input."""

import gc

import pytest
import torch

from mpq.models.memory.regions import Origin, region
from mpq.models.memory.storage_tracker import Memory, pointer

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")


def test_a_weight_is_found_in_its_own_storage_by_its_elements() -> None:
    both = torch.zeros(10, 4)
    first, second = both[:6], both[6:]
    memory = Memory([both])
    for number, weight in enumerate((first, second)):
        memory.add(weight, Origin(number, region(weight)))
    assert [origin.weight for origin in memory.origins(first)] == [0]
    assert [origin.weight for origin in memory.origins(second.T)] == [1]
    assert [origin.weight for origin in memory.origins(both)] == [0, 1]
    assert memory.origins(both[:0]) == []
    assert memory.origins(torch.zeros(4)) == []


def test_an_origin_is_remembered_once() -> None:
    weight = torch.zeros(4)
    memory = Memory([weight])
    for _ in range(2):
        memory.add(weight, Origin(0, region(weight)))
    assert len(memory.origins(weight)) == 1


def test_parameters_are_state_and_new_tensors_are_not() -> None:
    weight, fresh = torch.zeros(4), torch.zeros(4)
    memory = Memory([weight])
    assert memory.is_state(weight)
    assert memory.is_state(weight[1:])
    assert not memory.is_state(fresh)


def test_what_is_made_of_state_alone_is_state_until_data_is_written_to_it() -> None:
    weight = torch.zeros(4)
    memory, copy = Memory([weight]), weight + 1
    memory.write([copy], on_data=False)
    memory.add(copy, Origin(0, region(copy)))
    assert memory.is_state(copy)
    assert [origin.weight for origin in memory.origins(copy)] == [0]
    memory.write([copy], on_data=True)
    assert not memory.is_state(copy)
    assert memory.origins(copy) == []


def test_data_written_to_a_parameter_leaves_it_what_it_is() -> None:
    weight = torch.zeros(4)
    memory = Memory([weight])
    memory.add(weight, Origin(0, region(weight)))
    memory.write([weight], on_data=True)
    assert memory.is_state(weight)
    assert len(memory.origins(weight)) == 1


def test_the_identity_of_a_remembered_storage_is_not_given_to_another() -> None:
    weight = torch.zeros(4)
    memory = Memory([weight])
    for _ in range(50):
        copy = torch.zeros(4)
        memory.write([copy], on_data=False)
        memory.add(copy, Origin(0, region(copy)))
        del copy
    gc.collect()
    fresh = [torch.zeros(4) for _ in range(200)]
    assert not any(memory.is_state(tensor) or memory.origins(tensor) for tensor in fresh)


def test_results_are_shared_where_each_lies_in_the_storage_of_an_input() -> None:
    first, second = torch.zeros(4), torch.zeros(4)
    memory = Memory([])
    assert memory.shared([first[1:], second.view(2, 2)], [first, second])
    assert not memory.shared([first + 1], [first])
    assert not memory.shared([first, first + 1], [first])
    assert not memory.shared([torch.zeros(2, device="meta")], [torch.zeros(2, device="meta")])


def test_tensors_without_memory_have_no_pointer_and_no_origin() -> None:
    memory = Memory([torch.zeros(2, device="meta")])
    for tensor in (torch.zeros(2, device="meta"), torch.eye(2).to_sparse()):
        assert pointer(tensor) == 0
        assert memory.origins(tensor) == []
        assert not memory.is_state(tensor)
        memory.write([tensor], on_data=False)
        assert not memory.is_state(tensor)
    assert pointer(torch.zeros(2)) != 0
