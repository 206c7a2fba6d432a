"""What a model keeps between calls is copied, compared and put back."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpq.models.running.kept_state import changed_state, copied, kept_state, restore_state, state_names
from tests.models.running.test_habits import Scripted


class Keeper(nn.Module):
    """Keeps values of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("memory", torch.zeros(3))
        self.last, self.count, self.name = torch.ones(2), 3, "a"
        self.history: list[Any] = [torch.zeros(2), {"x": (1, None)}]
        self.function = print
        inner: Any = nn.Module()
        inner.seen = 0.5
        self.inner = inner


def names(module: nn.Module) -> list[str]:
    return sorted(state_names(kept_state(module)))


def test_buffers_tensors_numbers_and_texts_are_state_and_weights_and_functions_are_not() -> None:
    found = names(Keeper())
    assert [name for name in found if not name.startswith("linear.")] == ["count", "history", "inner.seen", "last", "memory", "name"]
    assert {"linear.in_features", "linear.out_features"} <= set(found)
    assert not {"linear.weight", "linear.bias", "function", "training"} & set(found)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda module: module.memory.add_(1), "memory"),
        (lambda module: setattr(module, "last", torch.ones(3)), "last"),
        (lambda module: setattr(module, "count", 3.0), "count"),
        (lambda module: module.history.append(1), "history"),
        (lambda module: module.history[0].add_(1), "history"),
        (lambda module: module.history[1].update(x=(1, 2)), "history"),
        (lambda module: setattr(module.inner, "seen", float("nan")), "inner.seen"),
        (lambda module: delattr(module, "name"), "name"),
    ],
)
def test_what_changed_is_found_and_put_back(change: Any, name: str) -> None:
    module = Keeper()
    before = kept_state(module)
    assert changed_state(module, before) == {}
    change(module)
    changed = changed_state(module, before)
    assert state_names(changed) == [name]
    restore_state(module, changed)
    assert changed_state(module, before) == {}


def test_a_buffer_is_restored_in_its_own_memory_and_a_resized_one_in_new_memory() -> None:
    module = Keeper()
    before, memory = kept_state(module), module.get_buffer("memory")
    memory.add_(1)
    restore_state(module, before)
    assert module.get_buffer("memory") is memory
    assert memory.tolist() == [0, 0, 0]
    module.register_buffer("memory", torch.ones(5))
    restore_state(module, before)
    assert module.get_buffer("memory").tolist() == [0, 0, 0]


def test_restored_values_are_copies() -> None:
    module = Keeper()
    before = kept_state(module)
    restore_state(module, before)
    module.history[0].add_(1)
    module.history[1]["x"] = ()
    restore_state(module, before)
    assert module.history[0].tolist() == [0, 0]
    assert module.history[1] == {"x": (1, None)}


def test_a_copy_shares_no_tensor_and_no_container() -> None:
    value = {"a": [torch.ones(2, requires_grad=True)], "b": 1}
    found = copied(value)
    assert found["a"] is not value["a"]
    assert not found["a"][0].requires_grad
    assert found["a"][0].data_ptr() != value["a"][0].data_ptr()  # type: ignore[index]


def test_attributes_of_torchscript_are_kept_too() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module: Any = torch.jit.script(Scripted().eval())
    x = torch.ones(1, 4)
    before = kept_state(module)
    assert {"count", "last"} <= set(state_names(before))
    first: Tensor = module(x)
    assert sorted(state_names(changed_state(module, before))) == ["count", "last"]
    restore_state(module, before)
    assert torch.equal(module(x), first)
