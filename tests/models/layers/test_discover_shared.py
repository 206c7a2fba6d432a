"""Discovery where memory and modules are shared: ties, views, parametrizations, experts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from mpq.data.batch import Batch
from mpq.errors import ModelError
from mpq.models.layers.discover import Discovery, discover
from mpq.records.layer import Layer
from tests.models.layers.discovering import IDS, IMAGES, X, brief, find


def test_parameters_in_one_flat_storage_are_told_apart() -> None:
    flat = torch.randn(128)
    module = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    for number, linear in enumerate(module):
        linear.weight = nn.Parameter(flat[64 * number : 64 * (number + 1)].view(8, 8))
    assert brief(find(module, X).layers) == [("0", (0,), "linear"), ("1", (0,), "linear")]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embed(ids))  # type: ignore[no-any-return]


TIED = Layer("embed", ("embed.weight", "head.weight"), (10, 8), (0,), "float32", "linear", ("embed", "head"))


def test_a_tied_weight_is_one_layer_laid_out_for_its_heaviest_use() -> None:
    found = find(Tied(), IDS)
    assert found == Discovery((TIED,), (), (), {"head.weight": "embed.weight"})


def test_a_module_used_twice_is_one_layer() -> None:
    shared = nn.Linear(8, 8)
    found = find(nn.Sequential(shared, shared), X)
    assert [layer.parameters for layer in found.layers] == [("0.weight", "1.weight")]
    assert (found.rest, found.aliases) == (("0.bias",), {"1.weight": "0.weight", "1.bias": "0.bias"})


def test_weights_that_share_memory_in_another_shape_are_refused() -> None:
    module = nn.Sequential(nn.Linear(8, 4, bias=False), nn.Linear(4, 8, bias=False))
    module[1].weight = nn.Parameter(module.get_parameter("0.weight").data.T)
    with pytest.raises(ModelError) as error:
        find(module, X)
    assert str(error.value) == "'0.weight' and '1.weight' overlap in memory without being the same tensor: separate them with .clone()"


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_the_original_of_a_parametrized_weight_is_the_layer(wrap: Callable[[nn.Module], nn.Module]) -> None:
    for module, value, operator in [(nn.Linear(8, 6), X, "linear"), (nn.Conv2d(4, 6, 3), IMAGES, "conv")]:
        (layer,) = find(wrap(module), value).layers
        assert layer.name in ("parametrizations.weight.original", "parametrizations.weight.original1")
        assert (layer.axes, layer.operator) == ((0,), operator)


class Symmetric(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return value.triu() + value.triu(1).mT


def test_a_parametrization_written_by_hand_is_followed() -> None:
    module = nn.Sequential(nn.Linear(8, 8))
    parametrize.register_parametrization(module[0], "weight", Symmetric())
    assert brief(find(module, X).layers) == [("0.parametrizations.weight.original", (0,), "linear")]


def test_a_pruned_weight_is_followed_through_its_mask() -> None:
    module = prune.l1_unstructured(nn.Linear(8, 6), "weight", amount=3)  # type: ignore[no-untyped-call]
    found = find(module, X)
    assert brief(found.layers) == [("weight_orig", (0,), "linear")]
    assert found.rest == ("bias", "weight_mask")


class Routed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.ConvTranspose1d(5, 4, 1) for _ in range(3))
        self.spare = nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor, expert: int) -> Tensor:
        return self.experts[expert](x)  # type: ignore[no-any-return]


def test_an_expert_without_data_is_unreached_and_laid_out_like_its_siblings() -> None:
    found = find(Routed(), X, 1)
    assert brief(found.layers) == [("experts.1", (1,), "conv")]
    assert brief(found.unreached) == [("spare", (0,), "other"), ("experts.0", (1,), "conv"), ("experts.2", (1,), "conv")]
    assert found.rest == ("experts.0.bias", "experts.1.bias", "experts.2.bias")


def test_an_expert_reached_by_any_batch_is_a_layer() -> None:
    found = discover(Routed().eval(), [Batch((X, 2), {}), Batch((X, 0), {})])
    assert [layer.name for layer in found.layers] == ["experts.2", "experts.0"]
