import pytest
import torch
from torch import nn

from mpq.errors import UsageError
from mpq.models.memory import devices
from mpq.models.memory.devices import CPU, device_named, device_of, move, moved
from tests.fake_device import fake_device
from tests.models.small import inputs, mlp


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(("text", "name"), [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")])
def test_a_device_is_found_by_its_name(text: str, name: str) -> None:
    assert device_named(text) == torch.device(name)


@pytest.mark.usefixtures("none")
def test_auto_is_the_cpu_where_there_is_nothing_else() -> None:
    assert device_named("auto") == CPU


@pytest.mark.parametrize(("text", "words"), [("cuda", "is not there"), ("mps", "is not there"), ("gpu", "is not a device")])
@pytest.mark.usefixtures("none")
def test_a_device_that_is_absent_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        device_named(text)
    assert str(error.value) == f"--device {text} {words}: this machine has cpu; choose one of them, or auto"


@pytest.mark.usefixtures("two")
def test_a_device_beyond_those_that_are_there_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"^--device cuda:2 is not there: this machine has cpu, cuda:1, cuda:0; choose one of them, or auto$"
    ):
        device_named("cuda:2")


def test_a_module_is_where_its_first_tensor_is() -> None:
    assert device_of(nn.ReLU()) == CPU
    assert device_of(nn.Linear(2, 2, device="meta")) == torch.device("meta")
    assert device_of(nn.BatchNorm1d(2, affine=False, device="meta")) == torch.device("meta")


def test_a_module_and_values_move() -> None:
    module = mlp()
    expected = module(inputs(2, 8))
    with fake_device() as device:
        move(module, device)
        assert device_of(module) == device
        given, other = moved(([inputs(2, 8)], 3), device)
        assert (given[0].device, other) == (device, 3)
        found = module(given[0])
        assert found.device == device
        back = found.cpu()
    assert torch.equal(back, expected)


def test_the_graph_of_an_exported_program_moves_with_its_devices_and_constants() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.table = torch.arange(4.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.linear(x) + torch.arange(4, device=x.device) + self.table
            return made

    module = torch.export.export(Model().eval(), (inputs(2, 4),)).module()
    expected = module(inputs(2, 4))
    with fake_device() as device:
        move(module, device)
        found = module(inputs(2, 4).to(device)).cpu()
    assert torch.equal(found, expected)


def test_devices_are_listed_the_fastest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices.devices() == ["mps", "cpu"]
