from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mpq.calibration.input_moments import CalibrationStatistics, Collected, collect_statistics, statistics_for
from mpq.data.batch import Batch
from mpq.data.dataset import Data, make_data
from mpq.formats.scheme import parse_scheme
from mpq.models.layers.discover import discover
from mpq.models.running.fake_quantized import Variants
from mpq.models.running.forward import forward
from mpq.models.running.swap import swapped, tensor_of
from mpq.records.layer import Layer
from mpq.tensors.hessian import output_errors
from mpq.tensors.matrix import from_matrix
from mpq.tensors.quantizers.registry import quantizer_named
from tests.models.layers.discovering import Lambda


def seeded(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def data_of(*batches: Tensor | tuple[Tensor, ...]) -> Data:
    return make_data([Batch(one if isinstance(one, tuple) else (one,)) for one in batches], source="memory")


def layer_of(module: nn.Module, data: Data, name: str | None = None) -> Layer:
    layers = discover(module.eval(), data.batches).layers
    return next(layer for layer in layers if name in (None, layer.name))


def change(module: nn.Module, layer: Layer, batch: Batch, difference: Tensor) -> float:
    """The squared change of the outputs when the matrix of `layer` is off by `difference`."""
    name = layer.parameters[0]
    old = tensor_of(module, name).detach()
    before = forward(module, batch)[0]
    with swapped(module, {name: old + from_matrix(difference, layer.shape, layer.axes, layer.groups).to(old.dtype)}):
        return float((forward(module, batch)[0] - before).double().square().sum())


def check(module: nn.Module, *batches: Tensor | tuple[Tensor, ...], name: str | None = None, tolerance: float = 1e-3) -> None:
    """For a model that is linear in one weight: the statistics predict what a change of any single row does to the output."""
    data = data_of(*batches)
    layer = layer_of(module, data, name)
    found = collect_statistics(module, [layer], data)
    assert found.fallbacks == {}
    statistics = found[layer.name]
    rows, columns = layer.matrix
    blocks = 1 if statistics.hessian.dim() == 2 else statistics.hessian.shape[0]
    assert statistics.hessian.shape[-2:] == (columns, columns)
    assert statistics.hessian.dtype == torch.float32
    assert rows % blocks == 0
    ratios = []
    for row in {0, rows // 2, rows - 1}:
        difference = torch.zeros(rows, columns)
        difference[row] = seeded(columns)
        expected = sum(change(module, layer, batch, difference) for batch in data.batches)
        predicted = float(output_errors(difference, statistics.hessian).sum())
        ratios.append(expected / predicted)
    assert ratios == pytest.approx([statistics.count] * len(ratios), rel=tolerance)


X = seeded(2, 5, 8)
IMAGES = seeded(2, 4, 8, 8)

LINEAR: dict[str, tuple[nn.Module, Tensor | tuple[Tensor, ...]]] = {
    "linear": (nn.Linear(8, 6), X),
    "linear without bias": (nn.Linear(8, 6, bias=False), X),
    "linear on a vector": (nn.Linear(8, 6, bias=False), X[0, 0]),
    "linear on a transposed input": (nn.Linear(8, 6), X.transpose(0, 1)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2), IMAGES[..., 0]),
    "conv2d": (nn.Conv2d(4, 6, 3), IMAGES),
    "conv2d with stride, padding and dilation": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(2, 1)), IMAGES),
    "conv2d channels last": (nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last), IMAGES),  # type: ignore[call-overload]
    "conv2d with same padding": (nn.Conv2d(4, 6, 3, padding="same"), IMAGES),
    "circular padding": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), IMAGES),
    "conv3d": (nn.Conv3d(4, 6, 3, padding=1), IMAGES[:, :, None].expand(-1, -1, 4, -1, -1)),
    "grouped conv": (nn.Conv2d(4, 6, 3, groups=2), IMAGES),
    "depthwise conv": (nn.Conv2d(4, 8, 3, groups=4, padding=1), IMAGES),
    "pointwise conv": (nn.Conv2d(4, 6, 1), IMAGES),
    "transposed conv1d": (nn.ConvTranspose1d(4, 6, 3, stride=2), IMAGES[..., 0]),
    "transposed conv2d": (nn.ConvTranspose2d(4, 6, (3, 2), stride=2, padding=1, dilation=2, output_padding=1), IMAGES),
    "weight first": (Lambda(lambda m, x: m.weight @ x[0].T, weight=seeded(6, 8)), X),
    "weight [in, out]": (Lambda(lambda m, x: x @ m.weight, weight=seeded(8, 6)), X),
    "transposed grouped conv": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2), IMAGES),
    "transposed depthwise conv": (nn.ConvTranspose1d(4, 8, 3, groups=4), IMAGES[..., 0]),
    "transposed copy": (Lambda(lambda m, x: x @ m.weight.T.contiguous(), weight=seeded(6, 8)), X),
    "cast weight": (Lambda(lambda m, x: x @ m.weight.float(), weight=seeded(8, 6).half()), X),
    "experts under bmm": (Lambda(lambda m, x: torch.bmm(x, m.weight), weight=seeded(2, 8, 6)), X),
    "experts, transposed bmm": (Lambda(lambda m, x: torch.bmm(x, m.weight.mT), weight=seeded(2, 6, 8)), X),
    "experts under einsum": (Lambda(lambda m, x: torch.einsum("eti,eio->eto", x, m.weight), weight=seeded(2, 8, 6)), X),
    "all experts": (Lambda(lambda m, x: torch.einsum("bti,eio->beto", x, m.weight), weight=seeded(3, 8, 6)), X),
    "heads merged into the sum": (Lambda(lambda m, x: x @ m.weight.reshape(8, 6), weight=seeded(2, 4, 6)), X),
    "columns in another order": (Lambda(lambda m, x: x @ m.weight.transpose(0, 1).reshape(8, 6), weight=seeded(2, 4, 6)), X),
    "matrix for the whole batch": (Lambda(lambda m, x: torch.bmm(x, m.weight.expand(2, -1, -1)), weight=seeded(8, 6)), X),
    "parts of a projection": (
        Lambda(lambda m, x: torch.cat([x @ m.weight[:4].T, 2 * x @ m.weight[4:].T], -1), weight=seeded(12, 8)),
        X,
    ),
}


@pytest.mark.parametrize("case", LINEAR)
def test_statistics_predict_the_change_of_the_output(case: str) -> None:
    module, inputs = LINEAR[case]
    check(module, inputs)


def test_statistics_of_many_batches_are_one_mean() -> None:
    check(nn.Linear(8, 6), X, seeded(3, 5, 8), seeded(1, 7, 8))


def test_bfloat16_layers_have_float32_statistics() -> None:
    data = data_of(X.bfloat16())
    module = nn.Linear(8, 6).bfloat16()
    found = collect_statistics(module, [layer_of(module, data)], data)["weight"].hessian
    vectors = X.bfloat16().float().view(-1, 8)
    torch.testing.assert_close(found, vectors.T @ vectors / len(vectors))


def test_grouped_convolution_has_one_moment_per_group() -> None:
    module, data = nn.Conv2d(4, 6, 3, groups=2), data_of(IMAGES)
    statistics = collect_statistics(module, [layer_of(module, data)], data)["weight"]
    assert statistics.hessian.shape == (2, 18, 18)
    patches = functional.unfold(IMAGES[:, 2:], 3).mT.reshape(-1, 18)
    torch.testing.assert_close(statistics.hessian[1], patches.T @ patches / len(patches))
    assert statistics.count == len(patches)


def test_tied_head_has_the_statistics_of_its_linear_use_and_the_identity_for_its_lookups() -> None:
    table = nn.Embedding(10, 8)
    module = Lambda(lambda m, ids: functional.linear(functional.relu(m.table(ids)), m.table.weight), table=table)
    data = data_of(torch.tensor([[1, 2, 3], [4, 5, 6]]))
    found = collect_statistics(module, [layer_of(module, data)], data)
    vectors = table.weight[1:7].relu().detach()
    moment = vectors.T @ vectors / 6
    torch.testing.assert_close(found["table"].hessian, moment + torch.eye(8) * moment.diagonal().mean())


def test_embedding_alone_has_none_and_says_why() -> None:
    module, data = nn.Embedding(10, 8), data_of(torch.tensor([[1, 2, 3]]))
    found = collect_statistics(module, [layer_of(module, data)], data)
    assert found == {}
    assert found.fallbacks == {"weight": "a lookup table"}


def test_unreached_experts_have_zeros() -> None:
    module = Lambda(lambda m, x: x @ m.weight[0], weight=seeded(2, 8, 6))
    data = data_of(X)
    hessian = collect_statistics(module, [layer_of(module, data)], data)["weight"].hessian
    assert hessian.shape == (2, 8, 8)
    assert hessian[0].diagonal().min() > 0
    assert hessian[1].abs().max() == 0


def test_experts_looked_up_by_token_have_none() -> None:
    module = Lambda(lambda m, x: x @ m.weight[(x[:, 0, 0] > 0).long()], weight=seeded(2, 8, 6))
    data = data_of(X)
    found = collect_statistics(module, [layer_of(module, data)], data)
    assert found.fallbacks == {"weight": "its matrices are looked up by token"}


def test_grouped_matmul_gives_each_expert_its_own_rows() -> None:
    ends = torch.tensor([4, 10], dtype=torch.int32)
    module, inputs = Lambda(lambda m, x: torch._grouped_mm(x, m.weight, offs=ends), weight=seeded(2, 8, 16)), X.reshape(10, 8)
    data = data_of(inputs)
    hessian = collect_statistics(module, [layer_of(module, data)], data)["weight"].hessian
    assert hessian.shape == (2, 8, 8)
    torch.testing.assert_close(hessian[1], inputs[4:].T @ inputs[4:] / 6)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_seen_through(kind: type[nn.Module]) -> None:
    module, data = kind(8, 6, batch_first=True), data_of(X)
    layers = discover(module.eval(), data.batches).layers
    found = collect_statistics(module, layers, data)
    assert found.fallbacks == {}
    vectors = X.reshape(-1, 8)
    torch.testing.assert_close(found["weight_ih_l0"].hessian, vectors.T @ vectors / 10)
    assert found["weight_hh_l0"].hessian.shape == (6, 6)


def test_self_attention_projects_with_one_moment_and_cross_attention_with_three() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    alone = Lambda(lambda m, x: m.attention(x, x, x, need_weights=False)[0], attention=attention)
    across = Lambda(lambda m, x, y: m.attention(x, y, y, need_weights=False)[0], attention=attention)
    other = seeded(2, 7, 8)
    layers = [layer for layer in discover(alone.eval(), data_of(X).batches).layers if "in_proj" in layer.name]
    (name,) = (layer.name for layer in layers)
    assert collect_statistics(alone, layers, data_of(X))[name].hessian.shape == (8, 8)
    hessian = collect_statistics(across, layers, data_of((X, other)))[name].hessian
    assert hessian.shape == (3, 8, 8)
    for block, vectors in zip(hessian, (X.reshape(-1, 8), other.view(-1, 8), other.view(-1, 8)), strict=True):
        torch.testing.assert_close(block, vectors.T @ vectors / len(vectors))


def test_fused_transformer_layer_is_seen_through_and_the_fast_path_is_put_back() -> None:
    module = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    data = data_of(X)
    layers = discover(module.eval(), data.batches).layers
    found = collect_statistics(module, layers, data)
    assert set(found) == {layer.name for layer in layers}
    assert torch.backends.mha.get_fastpath_enabled()


def test_exported_and_scripted_models_have_the_same_statistics() -> None:
    module = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5)).eval()
    data = data_of(IMAGES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        others = [torch.export.export(module, (IMAGES,)).module(check_guards=False), torch.jit.trace(module, (IMAGES,))]  # type: ignore[no-untyped-call]
    expected = collect_statistics(module, discover(module, data.batches).layers, data)
    assert set(expected) == {"0", "3"}
    for other in others:
        found = collect_statistics(other, discover(other, data.batches).layers, data)
        for name, statistics in expected.items():
            torch.testing.assert_close(found[name].hessian, statistics.hessian)


def test_inputs_that_are_not_finite_are_a_reason() -> None:
    module = Lambda(lambda m, x: m.linear(x / 0).nan_to_num(), linear=nn.Linear(8, 6))
    data = data_of(X)
    layers = discover(module, data.batches).layers
    assert collect_statistics(module, layers, data).fallbacks == {"linear": "its inputs are not finite"}


def chain() -> tuple[nn.Module, Data, tuple[Layer, ...]]:
    module, data = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)).eval(), data_of(X)
    return module, data, discover(module, data.batches).layers


def test_rows_too_wide_have_none_and_the_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpq.calibration.memory_parts.MOST_BYTES", 8 * 5**2)
    module, x = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 2)).eval(), torch.randn(4, 5)
    data = make_data([Batch((x,))], source="")
    found = collect_statistics(module, discover(module, data.batches).layers, data)
    assert list(found) == ["0"]
    assert found.fallbacks == {"1": "rows of 6 weights would take 0.0 GB of statistics, and 0.0 GB are allowed"}


def test_parts_give_the_same_as_all_at_once() -> None:
    module, data, layers = chain()
    whole = collect_statistics(module, layers, data)
    parts = CalibrationStatistics(module, layers, data, limit_bytes=1)
    assert list(parts) == list(whole)
    for name, statistics in whole.items():
        assert torch.equal(parts[name].hessian, statistics.hessian)


def test_parts_take_one_pass_each_when_asked_for_in_order() -> None:
    module, data, layers = chain()
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    parts = CalibrationStatistics(module, layers, data, limit_bytes=2 * 8 * 64)
    assert calls == []
    for layer in layers:
        parts.get(layer.name)
        parts.get(layer.name)
    assert len(calls) == 2
    assert parts.get("another") is None


def test_quantizers_without_need_for_statistics_cost_no_pass() -> None:
    module, data, layers = chain()
    module.register_forward_hook(lambda *_: pytest.fail("the model was run"))
    assert statistics_for(quantizer_named("mse"), module, layers, data) == Collected()


def test_quantizers_that_need_statistics_get_those_of_all_layers() -> None:
    module, data, layers = chain()
    assert set(statistics_for(quantizer_named("gptq"), module, layers, data)) == {layer.name for layer in layers}


def test_making_variants_collects_nothing_that_is_not_asked_for() -> None:
    module, data, layers = chain()
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    parts = CalibrationStatistics(module, layers, data, limit_bytes=1)
    variants = Variants(module, layers, quantizer_named("gptq"), statistics=parts)
    assert calls == []
    variants.weight(layers[0].name, parse_scheme("int4"))
    assert len(calls) == 1


@pytest.mark.parametrize("way", ["in place", "foreach", "part", "out"])
def test_a_tensor_that_is_changed_between_two_layers_counts_as_each_meets_it(way: str) -> None:
    class Changed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = x.clone()
            first = self.a(x)
            if way == "in place":
                x.mul_(2)
            elif way == "foreach":
                torch._foreach_mul_([x], 2.0)
            elif way == "part":
                x[:, :].mul_(2)
            else:
                torch.mul(x, 2, out=x)
            result: Tensor = self.b(x) + first
            return result

    module, data = Changed().eval(), data_of(seeded(7, 3))
    found = collect_statistics(module, discover(module, data.batches).layers, data)
    (x,) = data.batches[0].args
    assert torch.allclose(found["a"].hessian, x.T @ x / 7)
    assert torch.allclose(found["b"].hessian, 4 * x.T @ x / 7)
