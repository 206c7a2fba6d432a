import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import mpq


class Routed(nn.Module):
    """A gate whose choice no gradient reaches, by one of several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gate, self.value, self.way = nn.Linear(16, 4), nn.Linear(16, 4), way

    def forward(self, x: Tensor) -> Tensor:
        scores = self.gate(x)
        if self.way == "arg max":
            chosen = nn.functional.one_hot(scores.argmax(-1), 4).float()
        elif self.way == "rounding":
            chosen = (3 * scores).round()
        elif self.way == "detach":
            chosen = scores.detach()
        else:
            with torch.no_grad():
                chosen = self.gate(x)
        found: Tensor = self.value(x) * chosen
        return found


X = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))


def analyzed(module: nn.Module, method: str) -> mpq.Sensitivity:
    return mpq.analyze(module.eval(), X, candidates=("2", "4"), quantizer="rtn", method=method, metric="relative_mse")


@pytest.mark.parametrize("way", ["arg max", "rounding", "detach", "no_grad"])
def test_layers_that_no_gradient_reaches_are_measured_and_named(way: str) -> None:
    found, measured = analyzed(Routed(way), "fisher"), analyzed(Routed(way), "measure")
    for scheme in ("int2", "int4"):
        pair = ("gate", mpq.Scheme(scheme))
        assert found.mean(*pair) == measured.mean(*pair) > 0
    assert found.finish is not None
    assert found.finish["notes"] == ["measured instead, because no gradient reaches them: gate"]


class Halfway(nn.Module):
    """A first layer whose effect is mostly behind a cut."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(16, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        found: Tensor = self.b(h.detach() + 0.001 * h)
        return found


def test_layers_whose_gradient_is_a_small_part_of_the_truth_are_measured_and_named() -> None:
    found, measured = analyzed(Halfway(), "fisher"), analyzed(Halfway(), "measure")
    assert found.mean("a", mpq.Scheme("int4")) == measured.mean("a", mpq.Scheme("int4")) > 0
    assert found.mean("b", mpq.Scheme("int4")) != measured.mean("b", mpq.Scheme("int4"))
    assert found.finish is not None
    assert found.finish["notes"] == ["measured instead, because gradients misjudge their effect: a"]


class Frozen(nn.Module):
    """A model that never records gradients."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(16, 32), nn.Linear(32, 4)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.b(torch.relu(self.a(x)))
        return found


def test_a_model_without_any_gradient_is_measured_throughout() -> None:
    found, measured = analyzed(Frozen(), "fisher"), analyzed(Frozen(), "measure")
    assert found.frame()["error"].tolist() == measured.frame()["error"].tolist()
    assert found.finish is not None
    assert found.finish["notes"] == ["measured instead, because no gradient reaches them: a, b"]


def test_layers_with_a_gradient_are_not_measured() -> None:
    table = analyzed(nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)), "fisher")
    assert table.finish is not None
    assert not [note for note in table.finish.get("notes", []) if note.startswith("measured instead")]


class Recomputed(nn.Module):
    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.reentrant = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 32)), nn.Linear(32, 5), reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x) if self.reentrant is None else checkpoint(self.a, x, use_reentrant=self.reentrant)
        found: Tensor = self.b(torch.relu(x))
        return found


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_changes_no_value(reentrant: bool) -> None:
    plain, found = (analyzed(Recomputed(way), "fisher").frame()["error"].tolist() for way in (None, reentrant))
    assert found == plain
