"""Layers that no compared output depends on."""

import pytest
import torch
from torch import Tensor, nn

from mpq.analyze.unused import unused_layers
from mpq.data.batch import Batch
from mpq.data.dataset import data_from_batches
from mpq.models.layers.discover import discover
from mpq.models.running.comparison import Comparison, Part
from mpq.records.layer import Layer
from tests.models.small import inputs

BATCHES = [Batch((inputs(8, 6),)), Batch((inputs(8, 6, seed=2),))]


class TwoHeads(nn.Module):
    """A body under two heads, and a gate through which no gradient comes."""

    def __init__(self, *, gated: bool = False, weight_of_other: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.main, self.other, self.gate = nn.Linear(6, 6), nn.Linear(6, 3), nn.Linear(6, 3), nn.Linear(6, 3)
        self.gated, self.weight_of_other = gated, weight_of_other

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = torch.tanh(self.body(x))
        main = self.main(hidden)
        if self.gated:
            main = main * (self.gate(x) > 0)
        return {"main": main, "other": self.other(hidden) * self.weight_of_other}


def unused(module: nn.Module, *outputs: str, batches: list[Batch] | None = None) -> list[str]:
    given = batches or BATCHES
    layers = discover(module.eval(), given).layers
    return [layer.name for layer in unused_layers(module, layers, data_from_batches(given), compared(*outputs))]


def compared(*outputs: str) -> Comparison:
    return Comparison([Part(name, "relative_mse") for name in outputs])


def test_a_head_whose_output_is_not_compared_is_unused() -> None:
    assert unused(TwoHeads(), "main") == ["other"]
    assert unused(TwoHeads(), "other") == ["main"]
    assert unused(TwoHeads(), "main", "other") == []


def test_a_layer_that_no_gradient_reaches_but_that_changes_the_outputs_is_used() -> None:
    assert unused(TwoHeads(gated=True), "main") == ["other"]


def test_a_layer_times_zero_has_a_gradient_of_zero_and_is_kept() -> None:
    """A gradient arrives, even if it is zero on these samples: only what is cut off is left out."""
    assert unused(TwoHeads(weight_of_other=0.0), "main", "other") == []


def test_every_batch_has_a_say() -> None:
    class Late(TwoHeads):
        """The gate works only on large inputs."""

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            found = super().forward(x)
            open_gate = (x.amax() > 100) & (self.gate(x) > 0)
            return found | {"main": found["main"] * torch.where(open_gate, 2.0, 1.0)}

    assert unused(Late(), "main") == ["other", "gate"]
    assert unused(Late(), "main", batches=[BATCHES[0], Batch((inputs(8, 6) * 1000,))]) == ["other"]


def test_a_model_that_gives_no_gradients_is_judged_by_its_outputs_alone() -> None:
    class Detached(TwoHeads):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {name: value.detach() for name, value in super().forward(x).items()}

    assert unused(Detached(), "main") == ["other"]


def test_the_model_is_unchanged() -> None:
    module = TwoHeads(gated=True).eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    unused(module, "main")
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_are_changed_in_their_own_dtype(dtype: torch.dtype) -> None:
    batches = [Batch((inputs(8, 6).to(dtype),))]
    assert unused(TwoHeads(gated=True).to(dtype), "main", batches=batches) == ["other"]


def test_no_layers_are_none_unused() -> None:
    layers: list[Layer] = []
    assert unused_layers(TwoHeads().eval(), layers, data_from_batches(BATCHES), compared("main")) == []
