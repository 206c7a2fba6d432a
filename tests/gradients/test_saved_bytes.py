import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.gradients.saved_bytes import Saved, saved_bytes
from tests.models.small import inputs, mlp


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor, *, scale: Tensor) -> Tensor:
        made: Tensor = self.narrow(torch.tanh(self.wide(x))).tanh() * scale
        return made


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = Block(), Block(), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        scale = x.sigmoid()
        made: Tensor = self.last(self.second(self.first(x, scale=scale), scale=scale))
        return made


def test_each_tensor_counts_once_and_the_models_own_do_not() -> None:
    assert saved_bytes(mlp(), Batch((inputs(3, 8),))) == Saved(whole=4 * 3 * (8 + 16 + 2 + 16 + 12), outputs=3 * 4)


def test_blocks_are_told_apart_from_the_rest() -> None:
    module = Blocks().eval()
    found = saved_bytes(module, Batch((inputs(1, 8),)), [module.first, module.second])
    # x; tanh, tanh and the scale in the first block; its product, tanh and tanh in the second; and the last layer's input
    assert found == Saved(
        whole=4 * (8 + 16 + 8 + 8 + 8 + 16 + 8 + 8), inside=4 * (8 + 16 + 8 + 8 + 8 + 16 + 8), inputs=4 * 24, largest=4 * 40, outputs=2
    )
    assert found.recomputed == 4 * (8 + 24 + 40)


def test_flags_of_the_weights_are_those_of_before() -> None:
    module = Blocks()
    module.last.weight.requires_grad_(False)
    before = [parameter.requires_grad for parameter in module.parameters()]
    saved_bytes(module.eval(), Batch((inputs(1, 8),)), [module.first])
    assert [parameter.requires_grad for parameter in module.parameters()] == before
