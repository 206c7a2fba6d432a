import warnings

import pytest
import torch
from torch import Tensor, nn

import mpq
from mpq.data.dataset import data_from_batches
from mpq.models.running.metrics import RelativeMSE
from mpq.models.running.reference import Reference
from mpq.models.running.replay.graph import GraphTape
from mpq.models.running.replay.modules import ModuleTape
from mpq.models.running.replay.run import Replay, tape_for
from mpq.records.layer import Layer


class Pyramid(nn.Module):
    """The neck writes into the list that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.back = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.body, self.neck, self.head = Stages(self.back), Neck(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        levels = self.body(x)
        self.neck(levels)
        found: Tensor = self.head(levels[0] + levels[1])
        return found


class Stages(nn.Module):
    def __init__(self, parts: nn.ModuleList) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.parts[0](x)
        return [first, self.parts[1](first)]


class Neck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(6, 6)

    def forward(self, levels: list[Tensor]) -> None:
        levels[0] = self.mix(levels[1]) + levels[0]


class Cached(nn.Module):
    """The head reads what the body left in an attribute of another module."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.middle, self.head = Leaves(), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.middle(self.body(x)) + self.body.left[0])
        return found


class Leaves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.left = nn.Linear(6, 6), [torch.zeros(1)]

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear(x)
        self.left[0] = found.tanh()
        return found


X = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))


def errors(module: nn.Module, scheme: str) -> dict[str, float]:
    table = mpq.analyze(module, X, candidates=(scheme,), quantizer="rtn", method="measure", metric="relative_mse")
    return dict(zip(table.frame()["layer"], table.frame()["error"], strict=True))


def by_hand(module: nn.Module, name: str) -> float:
    weight = module.get_parameter(f"{name}.weight")
    with torch.no_grad():
        before, saved = module(X), weight.clone()
        weight.copy_(weight.half().float())
        after = module(X)
        weight.copy_(saved)
    kept = mpq.analyze(module, X, candidates=("fp16",), quantizer="rtn", method="measure").path is None
    assert kept
    return float(((after - before).square().sum(-1) / before.square().sum(-1)).mean())


def test_modules_that_fill_the_list_they_are_given_are_measured_right() -> None:
    torch.manual_seed(0)
    module = Pyramid().eval()
    found = errors(module, "fp16")
    for name in ("body.parts.0", "head", "neck.mix"):
        alias = name.replace("body.parts", "back")
        error = found.get(name, found.get(alias, -1.0))
        assert 0.2 < error / by_hand(module, name) < 5


def test_what_a_module_leaves_elsewhere_is_measured_right() -> None:
    torch.manual_seed(0)
    module = Cached().eval()
    found = errors(module, "fp16")
    for name in ("body.linear", "middle", "head"):
        assert 0.2 < found[name] / by_hand(module, name) < 5


def test_replay_is_given_up_where_nothing_changed_has_an_error() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3)
            self.a.forward = self.count  # type: ignore[method-assign, assignment]

        def count(self, x: Tensor) -> Tensor:
            outside.append(1.0)
            return nn.functional.linear(x, self.a.weight, self.a.bias)

        def forward(self, x: Tensor) -> Tensor:
            outside.clear()
            found: Tensor = self.b(self.a(x)) * len(outside)
            return found

    outside: list[float] = []
    module = Skips().eval()
    data = data_from_batches([X])
    replay = Replay(module, Reference(module, data, RelativeMSE()))
    replay.record(0)
    layer = Layer("b", ("b.weight",), (3, 6), (0,), "float32", consumers=("b",))
    changed = module.b.weight.detach() * 1.5
    error = float(replay.errors(0, layer, {"b.weight": changed}).mean())
    assert "a replay around 'b' gives different outputs" in replay.given_up
    assert error > 0
    with torch.no_grad():
        expected = module(X)
        module.b.weight.copy_(changed)
        after = module(X)
    assert abs(error - float(((after - expected).square().sum(-1) / expected.square().sum(-1)).mean())) < 1e-6


def linear(name: str, rows: int) -> Layer:
    return Layer(name, (f"{name}.weight",), (rows, 6), (0,), "float32", consumers=(name,))


def two() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).eval()


def test_each_kind_of_model_has_its_tape_or_none() -> None:
    exported = torch.export.export(two(), (X,)).module(check_guards=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit itself
        scripted: nn.Module = torch.jit.trace(two(), X)  # type: ignore[no-untyped-call]
    assert isinstance(tape_for(two()), ModuleTape)
    assert isinstance(tape_for(exported), GraphTape)
    assert tape_for(scripted) is None


def test_a_replay_counts_by_its_share_of_a_pass() -> None:
    module, data = two(), data_from_batches([X])
    reference = Reference(module, data, RelativeMSE())
    replay = Replay(module, reference)
    assert replay.cost == {"forward_equivalents": 1.0, "saved": 0.0}
    replay.record(0)
    for factor in (1.5, 2.0):
        errors = replay.errors(0, linear("2", 3), {"2.weight": module.get_parameter("2.weight").detach() * factor})
        assert float(errors.mean()) > 0
    share = 18 / (36 + 18)  # of the operations
    assert replay.cost == {"forward_equivalents": round(1 + 1 + 3 * share, 2), "saved": round(2 - 2 * share, 2)}
    assert replay.given_up == ""


def test_a_model_without_a_tape_runs_whole() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module: nn.Module = torch.jit.trace(two(), X)  # type: ignore[no-untyped-call]
    replay = Replay(module, Reference(module, data_from_batches([X]), RelativeMSE()))
    replay.record(0)
    changed = {"2.weight": module.get_parameter("2.weight").detach() * 2}
    assert replay.errors(0, linear("2", 3), changed).mean().item() == pytest.approx(errors_by_hand(changed["2.weight"]), rel=1e-5)
    replay.clear()
    assert replay.cost == {"forward_equivalents": 2.0, "saved": 0.0}


def errors_by_hand(weight: Tensor) -> float:
    module = two()
    with torch.no_grad():
        before = module(X)
        module.get_parameter("2.weight").copy_(weight)
        after = module(X)
    return float(((after - before).square().sum(-1) / before.square().sum(-1)).mean())
