import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.errors import ModelError
from mpq.models.inputs.fit_to_model import fit_data
from mpq.models.layers.unquantized_tensors import rest_tensors
from mpq.models.running.forward import forward
from mpq.models.running.habits import examine, habits_of, share_habits
from mpq.models.running.kept_state import kept_state, state_names
from mpq.models.sources.load import from_module

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
BATCHES = [Batch((X,)), Batch((X + 1,))]


class Recurrent(nn.Module):
    """Adds what it saw last, kept in a buffer, an attribute, or a list."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.linear, self.place = nn.Linear(4, 3), place
        self.memory: Tensor
        self.register_buffer("memory", torch.zeros(3))
        self.last = torch.zeros(3)
        self.history = [torch.zeros(3)]
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        before = {"buffer": self.memory, "attribute": self.last, "list": self.history[-1]}[self.place]
        found: Tensor = self.linear(x) + before
        seen = found.detach().mean(0)
        if self.place == "buffer":
            self.memory.copy_(seen)
        elif self.place == "attribute":
            self.last = seen
        else:
            self.history.append(seen)
        return found


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.last = torch.zeros(3)
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear(x) + self.last
        self.last = found.mean(0)
        self.count += 1
        return found


class Noisy(nn.Module):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.linear, self.drop, self.source = nn.Linear(4, 3), nn.Dropout(), source

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear(x)
        if self.source == "dropout":
            return nn.functional.dropout(found, 0.5, training=True)
        if self.source == "numpy":
            return found + float(np.random.rand())
        return found + torch.randn_like(found)


class Writes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear(x.mul_(2))
        return found


def examined(module: nn.Module, **options: Any) -> list[str]:
    return examine(module.eval(), BATCHES, lambda batch: forward(module, batch), **options)


@pytest.fixture(autouse=True)
def _same_inputs() -> Iterator[None]:
    before = X.clone()
    yield
    assert torch.equal(X, before)


@pytest.mark.parametrize(("place", "names"), [("buffer", "calls, memory"), ("attribute", "calls, last"), ("list", "calls, history")])
def test_state_is_named_and_put_back_before_every_call(place: str, names: str) -> None:
    module = Recurrent(place).eval()
    expected = module.linear(X).detach()
    (note,) = examined(module)
    assert sorted(note[note.index("(") + 1 : note.index(")")].split(", ")) == names.split(", ")
    for _ in range(3):
        forward(module, BATCHES[1])
        assert torch.equal(forward(module, BATCHES[0])[0], expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_attributes_of_torchscript_are_state_too() -> None:
    module: nn.Module = torch.jit.script(Scripted().eval())
    assert {"last", "count"} <= set(state_names(kept_state(module)))
    (note,) = examined(module)
    assert "keeps state between calls (last, count)" in note
    first = forward(module, BATCHES[0])[0]
    forward(module, BATCHES[1])
    assert torch.equal(forward(module, BATCHES[0])[0], first)


@pytest.mark.parametrize(("source", "place"), [("dropout", "the model by bernoulli"), ("randn", "the model by randn_like")])
def test_a_random_model_is_refused_with_the_place_and_the_way_out(source: str, place: str) -> None:
    with pytest.raises(ModelError, match=rf"different outputs each time .*{place}.*add --seed-each-forward"):
        examined(Noisy(source))


def test_the_module_that_draws_is_named() -> None:
    module = nn.Sequential(nn.Linear(4, 4), Noisy("randn"))
    with pytest.raises(ModelError, match="'1' by randn_like"):
        examined(module)


@pytest.mark.parametrize("source", ["dropout", "randn", "numpy"])
def test_a_seed_makes_it_repeatable_and_leaves_the_random_state_alone(source: str) -> None:
    module = Noisy(source)
    assert examined(module, seed=True) == ["every call starts with the random seed 0"]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(forward(module, BATCHES[0])[0], forward(module, BATCHES[0])[0])
    assert torch.equal(torch.rand(1), expected)


def test_randomness_that_no_seed_reaches_is_refused() -> None:
    draws = iter(torch.randn(100).tolist())

    class Foreign(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.add(next(draws))

    with pytest.raises(ModelError, match="and the same random seed"):
        examined(Foreign(), seed=True)


def test_inputs_that_a_model_writes_into_are_copied() -> None:
    module = Writes().eval()
    assert examined(module) == ["the model modifies its inputs, so every call gets a copy"]
    assert torch.equal(forward(module, BATCHES[0])[0], forward(module, BATCHES[0])[0])


def test_an_ordinary_model_needs_no_care() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Linear(8, 2))
    assert examined(module) == []
    assert habits_of(module) is None


class Streaming(nn.Module):
    """As voice detectors do: keeps the end of the last input, and starts anew when the number of samples changes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.context = torch.zeros(0)
        self.last_size = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.last_size != len(x):
            self.context = torch.zeros(len(x), 2)
        found: Tensor = self.linear(torch.cat([self.context, x], 1))
        self.context = x[:, -2:]
        self.last_size = len(x)
        return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("scripted", [False, True])
def test_fitting_data_leaves_no_state_behind_that_later_calls_begin_with(scripted: bool) -> None:
    """Fitting runs single samples and whole batches; the last of them must not become the state that is put back."""
    own = Streaming().eval()
    linear, module = own.linear, torch.jit.script(own) if scripted else own
    x = torch.randn(10, 4, generator=torch.Generator().manual_seed(1))
    fresh = [torch.cat([torch.zeros(len(part), 2), part], 1) for part in torch.split(x, 4)]
    with torch.no_grad():
        wanted = [linear(part) for part in fresh]
    data = fit_data([x[:4], x[4:8], x[8:]], model=from_module(module), source="memory")
    assert "keeps state between calls" in data.description
    for _ in range(2):
        for batch, right in zip(data.batches, wanted, strict=True):
            assert torch.equal(forward(module, batch)[0], right)
    again = fit_data([x[:4], x[4:8], x[8:]], model=from_module(module), source="memory")
    assert torch.equal(forward(module, again.batches[0])[0], wanted[0])


def test_state_of_a_model_that_was_used_before_is_found_by_the_batch_of_another_size() -> None:
    module = Streaming().eval()
    x = torch.randn(10, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        module(x[:4])
    examine(module, [Batch((part,)) for part in torch.split(x, 4)], lambda batch: forward(module, batch))
    known = habits_of(module)
    assert known is not None
    assert set(state_names(known.state)) == {"context", "last_size"}


def test_an_artifact_holds_the_state_that_was_found() -> None:
    module = Recurrent("buffer").eval()
    fit_data([X, X + 1], model=from_module(module), source="memory")
    forward(module, BATCHES[0])
    assert bool(module.memory.any())
    assert not bool(rest_tensors(from_module(module), [])["memory"].any())


class Sometimes(nn.Module):
    """Scales its outputs by a number that Python draws: one of two."""

    def __init__(self, choices: list[float]) -> None:
        super().__init__()
        self.linear, self.choices = nn.Linear(4, 3), choices

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear(x) * random.choice(self.choices)
        return found


def test_a_model_that_draws_is_called_more_often_before_it_passes_for_repeatable() -> None:
    random.seed(1)
    module = Sometimes([1.0, 1.0, 1.0, 1.5]).eval()
    with pytest.raises(ModelError, match="gives different outputs each time"):
        examine(module, BATCHES, lambda batch: forward(module, batch))
    same = Sometimes([1.0, 1.0]).eval()
    notes = examine(same, BATCHES, lambda batch: forward(same, batch))
    assert notes == ["the model draws random numbers, but its outputs were the same in 7 calls"]


def test_habits_are_shared_with_another_form_of_the_model() -> None:
    module, other, plain = Recurrent("buffer"), Recurrent("buffer"), nn.Linear(4, 3)
    examine(module, BATCHES, lambda batch: forward(module, batch))
    share_habits(module, other)
    assert habits_of(other) is habits_of(module) is not None
    share_habits(nn.Linear(4, 3), plain)
    assert habits_of(plain) is None
