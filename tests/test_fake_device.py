"""The device that is not there finds what a real one refuses."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.fake_device import MixedDevicesError, fake_device
from tests.models.small import inputs


def test_a_moved_tensor_says_so_and_keeps_its_values() -> None:
    before = inputs(3, 4)
    with fake_device() as device:
        there = before.to(device)
        assert (there.device, before.device.type, (there + 1).device, there[0].device) == (device, "cpu", device, device)
        assert torch.zeros(2, device=device).device == device
        assert torch.zeros_like(there).device == device
        assert torch.equal(there.cpu(), before)


@pytest.mark.parametrize(
    "work",
    [
        lambda here, there: here + there,
        lambda here, there: there @ here,
        lambda here, there: there.add_(here),
        lambda here, there: torch.cat([here, there]),
        lambda here, there: here[there.long().clamp(0, 2)],
        lambda here, there: there.__setitem__(torch.zeros(4, dtype=torch.long), here),
    ],
)
def test_ops_of_tensors_on_two_devices_fail(work: Any) -> None:
    with fake_device() as device, pytest.raises(MixedDevicesError):
        work(inputs(4, 4), inputs(4, 4).to(device))


def test_numpy_of_a_tensor_there_fails() -> None:
    with fake_device() as device:
        there = inputs(2).to(device)
        with pytest.raises(TypeError, match=r"^can't convert cuda:0 device type tensor to numpy"):
            there.numpy()
        assert there.cpu().numpy().dtype == np.float32


def test_scalars_copies_and_indices_may_cross() -> None:
    with fake_device() as device:
        there, here = inputs(3, 4).to(device), inputs(3, 4)
        assert (there * torch.tensor(2.0)).device == device
        here.copy_(there)
        here[0] = there[1]
        assert there[torch.tensor([0, 2])].device == device
        assert here.device.type == "cpu"


def test_gradients_are_on_the_device_of_what_they_are_of() -> None:
    with fake_device() as device:
        module = nn.Linear(4, 2).to(device)
        module(inputs(3, 4).to(device)).sum().backward()
        gradient = module.weight.grad
        assert gradient is not None
        assert gradient.device == device
        assert gradient.cpu().device.type == "cpu"
