"""Small models of every kind of layer, with inputs."""

import io
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mpq.data.dataset import Data, data_from_batches


def inputs(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mlp(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.LayerNorm(16), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4)).eval()


def data(samples: int = 24, *shape: int, seed: int = 1, batch_size: int = 8) -> Data:
    return data_from_batches(list(torch.split(inputs(samples, *(shape or (8,)), seed=seed), batch_size)))


class Tied(nn.Module):
    """Tokens in, logits out, through one table."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.body = nn.Linear(8, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.tanh(self.body(self.embedding(tokens))))
        return logits


class UpAndDown(nn.Module):
    """A grouped convolution and a grouped transposed one, batch norm, and a buffer of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(2, 4, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2)
        self.register_buffer("steps", torch.tensor([1, 2, 3], dtype=torch.int16))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.up(torch.relu(self.norm(self.down(x))))
        return made * self.get_buffer("steps").sum()


class Experts(nn.Module):
    """Bare parameters under einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(6, 3)
        self.up = nn.Parameter(torch.randn(3, 6, 10) / 3)
        self.down = nn.Parameter(torch.randn(3, 10, 6) / 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(torch.einsum("bi,eio->beo", x, self.up))
        mixed = torch.einsum("beo,eoi->bei", hidden, self.down)
        return torch.einsum("bei,be->bi", mixed, torch.softmax(self.gate(x), -1))


def tied() -> nn.Module:
    torch.manual_seed(0)
    return Tied().eval()


def up_and_down() -> nn.Module:
    torch.manual_seed(0)
    return UpAndDown().eval()


def experts() -> nn.Module:
    torch.manual_seed(0)
    return Experts().eval()


def bfloat() -> nn.Module:
    return mlp().bfloat16()


def bits(module: nn.Module) -> dict[str, bytes]:
    """Every tensor of the state dict, to the bit."""
    state = module.state_dict()
    return {name: tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for name, tensor in state.items()}


MODELS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "mlp": (mlp, inputs(8, 8)),
    "tied": (tied, torch.randint(0, 11, (8, 5), generator=torch.Generator().manual_seed(0))),
    "conv": (up_and_down, inputs(8, 2, 6, 6)),
    "experts": (experts, inputs(8, 6)),
    "bfloat16": (bfloat, inputs(8, 8).bfloat16()),
}


def saved_and_loaded(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """The program as `torch.jit.load` gives it, which refuses hooks, unlike a traced module in memory."""
    file = io.BytesIO()
    torch.jit.save(module, file)
    file.seek(0)
    loaded: torch.jit.ScriptModule = torch.jit.load(file)  # type: ignore[no-untyped-call]
    return loaded
