"""The layers of a model that is not run, by the classes of its modules."""

import warnings

import pytest
import torch
from torch import nn

from mpq.errors import ModelError
from mpq.models.layers.assume import assume, assumed_use
from tests.models.small import experts, tied, up_and_down


def test_modules_say_how_their_weights_are_laid_out() -> None:
    found = {layer.name: (layer.operator, layer.axes) for layer in assume(up_and_down()).layers}
    assert found == {"down": ("conv", (0,)), "up": ("conv", (1,))}
    assert {layer.name: layer.parameters for layer in assume(tied()).layers} == {
        "embedding": ("embedding.weight", "head.weight"),
        "body": ("body.weight",),
    }
    assert [layer.name for layer in assume(experts()).layers] == ["up", "down", "gate"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit itself
        scripted: nn.Module = torch.jit.trace(up_and_down(), torch.zeros(1, 2, 8, 8))  # type: ignore[no-untyped-call]
    assert {layer.name: layer.axes for layer in assume(scripted).layers} == {"down": (0,), "up": (1,)}
    recurrent = assume(nn.LSTM(4, 8))
    assert {layer.operator for layer in recurrent.layers} == {"recurrent"}
    norms = assume(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm([4, 8])))
    assert [layer.name for layer in norms.layers] == ["0"]


@pytest.mark.parametrize(
    ("module", "operator", "axes"),
    [
        (nn.Linear(2, 3), "linear", (0,)),
        (nn.Embedding(2, 3), "embedding", (0,)),
        (nn.EmbeddingBag(2, 3), "embedding", (0,)),
        (nn.Conv1d(2, 4, 1), "conv", (0,)),
        (nn.ConvTranspose3d(2, 4, 1), "conv", (1,)),
        (nn.GRUCell(2, 3), "recurrent", (0,)),
        (nn.Bilinear(2, 3, 4), "other", (0,)),
        (nn.Identity(), "other", (0,)),
    ],
)
def test_a_class_says_how_its_weight_is_used(module: nn.Module, operator: str, axes: tuple[int, ...]) -> None:
    found = assumed_use(module)
    assert (found.operator, found.axes, found.on_data, found.consumers) == (operator, axes, True, {})


def test_a_class_of_ones_own_is_known_by_its_name() -> None:
    class MyQuickLinear(nn.Module):
        pass

    assert assumed_use(MyQuickLinear()).operator == "linear"


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(ModelError):
        assume(nn.Sequential(nn.ReLU(), nn.LayerNorm(4)))
