"""Modules that write a file when they run, or when they are loaded, for TorchScript."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Saving(nn.Module):
    """Saves in `forward`."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.linear, self.marker = nn.Linear(8, 4), marker

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, self.marker)
        y: Tensor = self.linear(x)
        return y


class Mapping(nn.Module):
    """Maps a file into memory and fills it, in `forward`."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.linear, self.marker = nn.Linear(8, 4), marker

    def forward(self, x: Tensor) -> Tensor:
        mapped = torch.from_file(self.marker, True, 16)
        mapped.fill_(1.0)
        y: Tensor = self.linear(x) + mapped.sum()
        return y


class Restoring(nn.Module):
    """Saves while it is loaded."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.linear, self.marker = nn.Linear(8, 4), marker

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.marker, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.marker, self.training = state[0], state[1]
        torch.save(torch.ones(1), state[0])
