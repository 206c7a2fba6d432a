"""What ops do with a weight."""

from typing import Any

import pytest
import torch

from mpq.models.layers.operator_roles import OPERATORS, Role, role


def made(operation: str, argument: str, dims: int = 2, **arguments: Any) -> Role:
    return role(operation, argument, dims=dims, arguments=arguments)


@pytest.mark.parametrize(
    ("operation", "argument", "reduced"),
    [
        ("mm", "self", -1),
        ("mm", "mat2", -2),
        ("addmm", "mat1", -1),
        ("addmm", "mat2", -2),
        ("bmm", "mat2", -2),
        ("baddbmm", "batch1", -1),
        ("addbmm", "batch2", -2),
        ("mv", "self", -1),
        ("addmv", "mat", -1),
        ("linear", "weight", -1),
        ("_linear_pointwise", "W", -1),
        ("_grouped_mm", "mat2", -2),
    ],
)
def test_a_product_sums_over_one_dim(operation: str, argument: str, reduced: int) -> None:
    assert made(operation, argument) == Role("matmul", (reduced,))


@pytest.mark.parametrize(
    ("operation", "dims", "arguments", "reduced"),
    [
        ("convolution", 4, {}, (1, 2, 3)),
        ("conv2d", 4, {"groups": 2}, (1, 2, 3)),
        ("conv1d", 3, {}, (1, 2)),
        ("convolution", 4, {"transposed": True}, (0, 2, 3)),
        ("conv_transpose2d", 4, {}, (0, 2, 3)),
        ("mkldnn_convolution", 5, {}, (1, 2, 3, 4)),
    ],
)
def test_a_convolution_sums_over_all_but_its_outputs(
    operation: str, dims: int, arguments: dict[str, Any], reduced: tuple[int, ...]
) -> None:
    assert made(operation, "weight", dims, **arguments) == Role("conv", reduced)


def test_a_grouped_transposed_convolution_is_seen_with_its_groups_as_a_dimension_of_their_own() -> None:
    assert made("convolution", "weight", 4, transposed=True, groups=2) == Role("conv", (1, 3, 4), groups=2)


@pytest.mark.parametrize(
    ("operation", "argument", "arguments", "reduced"),
    [
        ("embedding", "weight", {}, (1,)),
        ("_embedding_bag", "weight", {}, (1,)),
        ("index_select", "self", {"dim": 0}, (1,)),
        ("index_select", "self", {"dim": 1}, (0,)),
        ("gather", "self", {"dim": 1}, (0,)),
        ("index", "self", {"indices": [torch.tensor([0])]}, (1,)),
        ("index", "self", {"indices": [None, torch.tensor([0])]}, (0,)),
    ],
)
def test_a_lookup_sums_over_nothing_but_picks_along_one_dim(
    operation: str, argument: str, arguments: dict[str, Any], reduced: tuple[int, ...]
) -> None:
    assert made(operation, argument, **arguments) == Role("embedding", reduced)


@pytest.mark.parametrize(
    ("operation", "argument", "expected"),
    [
        ("lstm", "weight_ih", Role("recurrent", (1,))),
        ("quantized_gru", "params", Role("recurrent", (1,))),
        ("_thnn_fused_lstm_cell", "w_hh", Role("recurrent", (1,))),
        ("rnn_tanh_cell", "weight", Role("recurrent", (1,))),
        ("_transformer_encoder_layer_fwd", "qkv_weight", Role("linear", (1,))),
        ("_transformer_encoder_layer_fwd", "norm_weight_1", Role("other")),
        ("_trilinear", "i2", Role("linear", (1,))),
        ("native_layer_norm", "weight", Role("norm")),
        ("native_layer_norm", "input", Role("other")),
        ("_fused_rms_norm", "weight", Role("norm")),
        ("zeros_like", "self", Role("none")),
        ("new_zeros", "self", Role("none")),
        ("embedding_renorm", "self", Role("none")),
        ("add", "self", Role("other")),
        ("mm", "out", Role("other")),
        ("convolution", "bias", Role("other")),
    ],
)
def test_other_ops(operation: str, argument: str, expected: Role) -> None:
    assert made(operation, argument) == expected


def test_names_are_those_of_ops_that_torch_has() -> None:
    for name in ("mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "linear", "embedding", "_embedding_bag", "_trilinear", "gather"):
        assert hasattr(torch.ops.aten, name)
    assert OPERATORS[-1] == "other"
