from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mpq.errors import DataError, ModelError
from mpq.models.layers.discover import discover
from tests.models.layers.discovering import IDS, IMAGES, Lambda, X, brief, find, quiet, weight


def linears() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3))


def convolutions() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5))


SINGLE: dict[str, tuple[nn.Module, Tensor, tuple[int, ...], str]] = {
    "linear": (nn.Linear(8, 6), X, (0,), "linear"),
    "linear without bias": (nn.Linear(8, 6, bias=False), X, (0,), "linear"),
    "linear on a vector": (nn.Linear(8, 6, bias=False), X[0, 0], (0,), "linear"),
    "linear on a transposed input": (nn.Linear(8, 6), X.transpose(0, 1), (0,), "linear"),
    "linear of one output": (nn.Linear(8, 1), X, (0,), "linear"),
    "linear of one input": (nn.Linear(1, 6), X[..., :1], (0,), "linear"),
    "bfloat16 linear": (nn.Linear(8, 6).bfloat16(), X.bfloat16(), (0,), "linear"),
    "float16 linear": (nn.Linear(8, 6).half(), X.half(), (0,), "linear"),
    "conv1d": (nn.Conv1d(4, 6, 3), IMAGES[..., 0], (0,), "conv"),
    "conv2d": (nn.Conv2d(4, 6, 3), IMAGES, (0,), "conv"),
    "conv2d channels last": (nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last), IMAGES, (0,), "conv"),  # type: ignore[call-overload]
    "conv3d": (nn.Conv3d(4, 6, 3), IMAGES[:, :, None].expand(-1, -1, 4, -1, -1), (0,), "conv"),
    "grouped conv": (nn.Conv2d(4, 6, 3, groups=2), IMAGES, (0,), "conv"),
    "depthwise conv": (nn.Conv2d(4, 4, 3, groups=4), IMAGES, (0,), "conv"),
    "pointwise conv": (nn.Conv2d(4, 6, 1), IMAGES, (0,), "conv"),
    "conv with circular padding": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), IMAGES, (0,), "conv"),
    "transposed conv1d": (nn.ConvTranspose1d(4, 6, 3), IMAGES[..., 0], (1,), "conv"),
    "transposed conv2d": (nn.ConvTranspose2d(4, 6, 3), IMAGES, (1,), "conv"),
    "transposed grouped conv": (nn.ConvTranspose2d(4, 6, 3, groups=2), IMAGES, (1,), "conv"),
    "transposed depthwise conv": (nn.ConvTranspose2d(4, 12, 3, groups=4), IMAGES, (0, 1), "conv"),
    "embedding": (nn.Embedding(10, 8), IDS, (0,), "embedding"),
    "embedding bag": (nn.EmbeddingBag(10, 8), IDS, (0,), "embedding"),
    "weight first": (Lambda(lambda m, x: m.weight @ x[0].T, weight=weight(6, 8)), X, (0,), "linear"),
    "weight [in, out]": (Lambda(lambda m, x: x @ m.weight, weight=weight(8, 6)), X, (1,), "linear"),
    "experts [E, in, out]": (Lambda(lambda m, x: torch.einsum("eti,eio->eto", x, m.weight), weight=weight(2, 8, 6)), X, (0, 2), "matmul"),
    "experts under bmm": (Lambda(lambda m, x: torch.bmm(x, m.weight), weight=weight(2, 8, 6)), X, (0, 2), "matmul"),
    "experts [E, out, in]": (Lambda(lambda m, x: torch.einsum("eti,eoi->eto", x, m.weight), weight=weight(2, 6, 8)), X, (0, 1), "matmul"),
    "experts, transposed bmm": (Lambda(lambda m, x: torch.bmm(x, m.weight.mT), weight=weight(2, 6, 8)), X, (0, 1), "matmul"),
    "all experts": (Lambda(lambda m, x: torch.einsum("bti,eio->beto", x, m.weight), weight=weight(3, 8, 6)), X, (0, 2), "matmul"),
    "one expert at a time": (Lambda(lambda m, x: x @ m.weight[0] + x @ m.weight[1], weight=weight(2, 8, 6)), X, (0, 2), "matmul"),
    "a linear for each expert": (Lambda(lambda m, x: functional.linear(x, m.weight[1]), weight=weight(2, 6, 8)), X, (0, 1), "matmul"),
    "experts looked up by token": (Lambda(lambda m, x: x @ m.weight[(x[:, 0, 0] > 0).long()], weight=weight(2, 8, 6)), X, (0, 2), "matmul"),
    "grouped matmul": (
        Lambda(lambda m, x: torch._grouped_mm(x, m.weight, offs=torch.tensor([4, 10], dtype=torch.int32)), weight=weight(2, 8, 16)),
        X.reshape(10, 8),
        (0, 2),
        "matmul",
    ),
    "heads merged into the sum": (Lambda(lambda m, x: x @ m.weight.reshape(8, 6), weight=weight(2, 4, 6)), X, (2,), "matmul"),
    "cast weight": (Lambda(lambda m, x: x @ m.weight.float(), weight=weight(8, 6).bfloat16()), X, (1,), "linear"),
    "transposed copy": (Lambda(lambda m, x: x @ m.weight.T.contiguous(), weight=weight(6, 8)), X, (0,), "linear"),
    "masked weight": (Lambda(lambda m, x: functional.linear(x, m.weight * m.weight.sign()), weight=weight(6, 8)), X, (0,), "linear"),
    "class and position tokens": (Lambda(lambda m, x: x + m.weight, weight=weight(1, 5, 8)), X, (0, 1), "other"),
    "cloned, then changed in place": (Lambda(lambda m, x: m.weight.clone().add_(x[0]).mm(x[0].T), weight=weight(5, 8)), X, (0,), "other"),
    "row lookup by index": (Lambda(lambda m, x: x + m.weight[x[..., 0].long().clamp(0, 3)], weight=weight(4, 8)), X, (0,), "embedding"),
}


def _rows(weight: Tensor) -> Tensor:
    """[groups, in, out, 3] as transposed convolutions have it, the groups side by side."""
    return weight.flatten(0, 1)


UP: dict[str, tuple[nn.Module, tuple[int, ...], int, tuple[int, int]]] = {
    "one group": (nn.ConvTranspose1d(4, 6, 3), (1,), 1, (6, 12)),
    "two groups": (nn.ConvTranspose1d(4, 6, 3, groups=2), (1,), 2, (6, 6)),
    "two groups of one output": (nn.ConvTranspose1d(4, 2, 3, groups=2), (1,), 2, (2, 6)),
    "one input a group": (nn.ConvTranspose1d(4, 8, 3, groups=4), (0, 1), 1, (8, 3)),
    "pointwise": (nn.ConvTranspose1d(4, 6, 1, groups=2), (1,), 2, (6, 2)),
    "groups with an axis of their own": (
        Lambda(lambda m, x: functional.conv_transpose1d(x, _rows(m.weight), groups=2), weight=weight(2, 2, 3, 3)),
        (0, 2),
        1,
        (6, 6),
    ),
    "a cast weight": (
        Lambda(lambda m, x: functional.conv_transpose1d(x, m.weight.float(), groups=2), weight=weight(4, 3, 3).bfloat16()),
        (1,),
        2,
        (6, 6),
    ),
}


@pytest.mark.parametrize("case", UP)
def test_a_transposed_convolution_has_a_row_per_output_channel(case: str) -> None:
    module, axes, groups, matrix = UP[case]
    (layer,) = find(module, IMAGES[..., 0]).layers
    assert (layer.axes, layer.groups, layer.matrix) == (axes, groups, matrix)


@pytest.mark.parametrize(("module", "value", "axes", "operator"), SINGLE.values(), ids=SINGLE)
def test_a_single_weight_is_found_with_its_output_axes(module: nn.Module, value: Tensor, axes: tuple[int, ...], operator: str) -> None:
    found = find(module, value)
    (layer,) = found.layers
    assert (layer.name, layer.parameters, layer.axes, layer.operator) == ("weight", ("weight",), axes, operator)
    assert layer.shape == tuple(module.get_parameter("weight").shape)
    assert found.unreached == ()
    assert found.rest == tuple(name for name in module.state_dict() if name != "weight")


def test_the_layers_come_in_order_of_use_and_the_rest_in_order_of_the_state_dict() -> None:
    module = Lambda(lambda m, x: m.first(m.norm(m.second(x))), first=nn.Linear(8, 3), norm=nn.LayerNorm(8), second=nn.Linear(8, 8))
    found = find(module, X)
    assert [layer.name for layer in found.layers] == ["second", "first"]
    assert found.rest == ("first.bias", "norm.weight", "norm.bias", "second.bias")
    assert found.aliases == {}


def test_a_layer_knows_the_modules_that_consume_it() -> None:
    assert [layer.consumers for layer in find(nn.Sequential(nn.Sequential(nn.Linear(8, 8)), nn.Linear(8, 2)), X).layers] == [
        ("0.0",),
        ("1",),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_layer_knows_its_dtype(dtype: torch.dtype) -> None:
    (layer,) = find(nn.Linear(8, 4).to(dtype), X.to(dtype)).layers
    assert layer.dtype == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize(
    "norm",
    [nn.LayerNorm((5, 8)), nn.RMSNorm((5, 8)), nn.LayerNorm(8), nn.GroupNorm(1, 5), nn.BatchNorm1d(5), nn.InstanceNorm1d(5, affine=True)],
    ids=lambda norm: type(norm).__name__,
)
def test_the_parameters_of_a_norm_are_never_layers(norm: nn.Module) -> None:
    found = find(nn.Sequential(norm, nn.Linear(8, 2)), X)
    assert [layer.name for layer in found.layers] == ["1"]
    assert found.unreached == ()
    assert "0.weight" in found.rest


@pytest.mark.parametrize("norm", [nn.LayerNorm(8), nn.RMSNorm(8)], ids=lambda norm: type(norm).__name__)
def test_a_weight_that_a_norm_takes_as_its_input_is_a_layer(norm: nn.Module) -> None:
    module = Lambda(lambda m, x: m.norm(m.latents) + x, latents=weight(5, 8), norm=norm)
    assert brief(find(module, X).layers) == [("latents", (0,), "other")]


def test_a_weight_with_one_wide_dim_is_no_layer_without_a_product() -> None:
    module = Lambda(lambda m, x: m.head(torch.cat([m.token.expand(2, -1, -1), x], 1)), token=weight(1, 1, 8), head=nn.Linear(8, 2))
    found = find(module, X)
    assert [layer.name for layer in found.layers] == ["head"]
    assert found.rest == ("token", "head.bias")


def test_a_matrix_of_biases_is_no_layer() -> None:
    module = Lambda(lambda m, x: torch.bmm(x, m.up) + m.up_bias[:, None], up=weight(2, 8, 6), up_bias=weight(2, 6))
    found = find(module, X)
    assert brief(found.layers) == [("up", (0, 2), "matmul")]
    assert found.rest == ("up_bias",)


def test_a_bilinear_weight_has_its_outputs_first() -> None:
    assert brief(find(nn.Bilinear(8, 8, 3), X, X).layers) == [("weight", (0,), "linear")]


ATTENTION = [("in_proj_weight", (0,), "linear"), ("out_proj", (0,), "linear")]


def test_the_joint_weight_of_fused_attention_is_found() -> None:
    assert brief(find(nn.MultiheadAttention(8, 2, batch_first=True), X, X, X).layers) == ATTENTION


def test_the_joint_weight_of_attention_over_other_keys_is_found() -> None:
    assert brief(find(nn.MultiheadAttention(8, 2, batch_first=True), X, X + 1, X - 1).layers) == ATTENTION


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
def test_the_weights_of_a_transformer_encoder_layer_are_found(fused: bool) -> None:
    module = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="relu" if fused else torch.tanh)
    expected = [("self_attn.in_proj_weight", (0,)), ("self_attn.out_proj", (0,)), ("linear1", (0,)), ("linear2", (0,))]
    assert [(layer.name, layer.axes) for layer in find(module, X).layers] == expected


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_every_weight_of_a_recurrent_module_is_found(kind: type[nn.RNNBase]) -> None:
    module = kind(8, 4, 2, bidirectional=True, batch_first=True)  # type: ignore[arg-type]
    names = {f"weight_{part}_l{number}{way}" for part in ("ih", "hh") for number in (0, 1) for way in ("", "_reverse")}
    found = find(module, X)
    assert {layer.name for layer in found.layers} == names
    assert {(layer.axes, layer.operator) for layer in found.layers} == {((0,), "recurrent")}


def test_the_weights_of_recurrent_cells_and_projections_are_found() -> None:
    assert brief(find(nn.LSTMCell(8, 4), X[0]).layers) == [("weight_hh", (0,), "recurrent"), ("weight_ih", (0,), "recurrent")]
    with quiet():
        found = find(nn.LSTM(8, 4, proj_size=2), X)
    assert {(layer.name, layer.axes) for layer in found.layers} == {("weight_ih_l0", (0,)), ("weight_hh_l0", (0,)), ("weight_hr_l0", (0,))}


def test_weights_that_are_joined_at_run_time_are_each_found() -> None:
    module = Lambda(lambda m, x: functional.linear(x, torch.cat([m.query, m.key])), query=weight(8, 8), key=weight(4, 8))
    assert brief(find(module, X).layers) == [("query", (0,), "linear"), ("key", (0,), "linear")]
    stacked = Lambda(lambda m, x: torch.bmm(x, torch.stack([m.one, m.two])), one=weight(8, 6), two=weight(8, 6))
    assert brief(find(stacked, X).layers) == [("one", (1,), "linear"), ("two", (1,), "linear")]


def test_discovery_leaves_no_hooks_and_no_gradients_behind() -> None:
    module = linears()
    find(module, X)
    assert not torch.nn.modules.module._has_any_global_hook()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())


def test_hooks_are_removed_when_the_model_fails() -> None:
    with pytest.raises(DataError):
        find(linears(), torch.randn(2, 3))
    assert not torch.nn.modules.module._has_any_global_hook()  # type: ignore[no-untyped-call]


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(ModelError) as error:
        find(nn.LayerNorm(8), X)
    expected = "the model has no weight to quantize: its forward pass consumes no floating-point parameter of two or more dimensions"
    assert str(error.value) == expected


def test_float64_weights_are_refused() -> None:
    with pytest.raises(ModelError) as error:
        find(nn.Sequential(nn.Linear(8, 4)).double(), X.double())
    assert str(error.value) == "'0.weight' is float64: convert the model with .float() first"


def test_a_float64_weight_among_others_is_carried_along() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(8, 4), nn.Linear(4, 4).double()

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.last(self.first(x).double())
            return found

    found = find(Mixed(), X)
    assert [layer.name for layer in found.layers] == ["first"]
    assert found.rest == ("first.bias", "last.weight", "last.bias")


def test_no_batches_are_refused() -> None:
    with pytest.raises(DataError) as error:
        discover(linears(), [])
    assert str(error.value) == "there is no data to run the model on: give at least one sample"


class Extra(nn.Linear):
    def get_extra_state(self) -> Any:
        return {"step": 1}

    def set_extra_state(self, state: Any) -> None:
        pass


def test_a_state_dict_with_more_than_tensors_is_refused() -> None:
    with pytest.raises(ModelError) as error:
        find(nn.Sequential(Extra(8, 2)), X)
    assert str(error.value) == "'0._extra_state' in the state dict is not a tensor but dict: mpq stores tensors only"


def test_a_name_that_another_tensor_has_keeps_its_suffix() -> None:
    def add(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
        state["up"] = torch.zeros(1)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Linear(8, 2, bias=False)
            self.register_state_dict_post_hook(add)  # type: ignore[no-untyped-call]

        def forward(self, x: Tensor) -> Tensor:
            return self.up(x)  # type: ignore[no-any-return]

    assert [layer.name for layer in find(Odd(), X).layers] == ["up.weight"]
