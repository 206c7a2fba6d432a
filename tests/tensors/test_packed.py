"""What users do with tensors works with packed ones, and gives what the dequantized weights give."""

import copy
import io
import zipfile

import pytest
import torch
from torch import nn

from mpq.errors import UsageError
from mpq.formats.scheme import parse_scheme
from mpq.tensors.kernels import choose
from mpq.tensors.packed import PackedTensor, plain
from tests.tensors.packing import packed, pair

TOKENS = torch.arange(10).view(2, 5)
MODULES = {
    "linear": (nn.Linear(64, 48), torch.randn(3, 64)),
    "linear without samples": (nn.Linear(64, 48), torch.randn(0, 64)),
    "linear on many samples": (nn.Linear(64, 48), torch.randn(9, 8, 64)),
    "convolution": (nn.Conv2d(8, 16, 3), torch.randn(2, 8, 9, 9)),
    "grouped convolution": (nn.Conv1d(8, 16, 3, groups=2, padding="same"), torch.randn(2, 8, 9)),
    "transposed convolution": (nn.ConvTranspose1d(8, 16, 3), torch.randn(2, 8, 9)),
    "embedding": (nn.Embedding(50, 32), TOKENS),
    "LSTM": (nn.LSTM(32, 32, 2), torch.randn(4, 2, 32)),
    "GRU": (nn.GRU(32, 32), torch.randn(4, 2, 32)),
    "attention": (nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), torch.randn(2, 5, 32)),
}


def small(*before: nn.Module) -> nn.Module:
    return nn.Sequential(*before, nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32))


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("scheme", ["int4-g32", "int8", "nf4", "int3-asym-g16", "nl4-g16-s8"])
def test_modules_give_what_dequantized_weights_give(kind: str, scheme: str) -> None:
    module, inputs = MODULES[kind]
    dense, packed_module = pair(module, scheme)
    with torch.no_grad():
        expected, found = dense(inputs), packed_module(inputs)
    assert same(found[0] if isinstance(found, tuple) else found, expected[0] if isinstance(expected, tuple) else expected)
    assert type(packed_module) is type(module)


def test_matrix_products_and_views() -> None:
    weight = packed(torch.randn(48, 64))
    dense, x, bias = weight.dequantize(), torch.randn(3, 64), torch.randn(48)
    assert same(x @ weight.t(), x @ dense.t())
    assert same(x @ weight.T, x @ dense.T)
    assert same(torch.addmm(bias, x, weight.t()), torch.addmm(bias, x, dense.t()))
    assert same(torch.addmm(bias, x, weight.t(), beta=2), torch.addmm(bias, x, dense.t(), beta=2))
    assert same(weight @ torch.ones(64), dense @ torch.ones(64))
    assert isinstance(weight.t().t(), PackedTensor)
    assert isinstance(weight.view(48, -1), PackedTensor)
    assert torch.equal(weight[3:5], dense[3:5])
    assert torch.equal(weight.reshape(-1), dense.reshape(-1))
    assert torch.equal(torch.cat([weight, weight]), torch.cat([dense, dense]))
    experts = packed(torch.randn(3, 16, 24), "int4", (0, 2))
    assert same(torch.bmm(torch.ones(3, 2, 16), experts), torch.bmm(torch.ones(3, 2, 16), experts.dequantize()))


def test_outputs_on_the_last_axis_multiply_packed() -> None:
    weight = packed(torch.randn(64, 48), axes=(1,))
    assert same(torch.addmm(torch.zeros(48), torch.ones(3, 64), weight), torch.ones(3, 64) @ weight.dequantize())


def test_gradients_flow_to_the_input() -> None:
    dense, packed_module = pair(small())
    gradients = []
    for module in (dense, packed_module):
        x = torch.ones(2, 64, requires_grad=True)
        module(x).sum().backward()
        assert x.grad is not None
        gradients.append(x.grad)
    assert same(gradients[1], gradients[0])


def test_copies_are_packed_and_apart() -> None:
    _, module = pair(small())
    other = copy.deepcopy(module)
    weight, copied = module.get_parameter("0.weight"), other.get_parameter("0.weight")
    assert isinstance(weight, PackedTensor)
    assert isinstance(copied, PackedTensor)
    assert isinstance(copied, nn.Parameter)
    assert copied.packed.codes.data_ptr() == copied.packed_codes.data_ptr() != weight.packed_codes.data_ptr()
    assert torch.equal(copied.dequantize(), weight.dequantize())


def test_a_state_dict_goes_through_a_file_and_back() -> None:
    _, module = pair(small())
    _, other = pair(small())
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(3, 64)
    assert torch.equal(other(x), module(x))


def test_a_state_dict_that_has_schemes_under_their_former_home_is_read() -> None:
    _, module = pair(small())
    now, former = io.BytesIO(), io.BytesIO()
    torch.save(module.state_dict(), now)
    with zipfile.ZipFile(now) as file, zipfile.ZipFile(former, "w") as copy_of_file:
        for entry in file.infolist():
            content = file.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert b"cmpq.formats.scheme\nScheme\n" in content
                content = content.replace(b"cmpq.formats.scheme\nScheme\n", b"cmpq.schemes\nScheme\n")
            copy_of_file.writestr(entry, content)
    former.seek(0)
    found = torch.load(former, weights_only=True)
    assert all(torch.equal(plain(tensor), plain(found[name])) for name, tensor in module.state_dict().items())


def test_inference_mode_keeps_weights_packed() -> None:
    dense, module = pair(small())
    x = torch.randn(3, 64)
    weight = module.get_parameter("0.weight")
    with torch.inference_mode():
        assert isinstance(weight.to(torch.bfloat16), PackedTensor)
        assert isinstance(weight.T, PackedTensor)
        assert same(x @ weight.T, x @ dense.get_parameter("0.weight").T)
        assert same(torch.ops.aten.linear.default(x, weight), dense.get_submodule("0")(x) - dense.get_parameter("0.bias"))
        for kind, (other, inputs) in MODULES.items():
            plain, packed_module = pair(other)
            expected, found = plain(inputs), packed_module(inputs)
            assert same(found[0] if isinstance(found, tuple) else found, expected[0] if isinstance(expected, tuple) else expected), kind


def test_modules_move_and_change_their_dtype() -> None:
    dense, module = pair(small())
    half = copy.deepcopy(module).to(torch.bfloat16)
    weight = half.get_parameter("0.weight")
    assert isinstance(weight, PackedTensor)
    assert weight.dtype == torch.bfloat16
    x = torch.randn(3, 64)
    found = half(x.bfloat16())
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), dense(x), atol=0.05)
    assert module.to("meta").get_parameter("0.weight").is_meta


def layout(module: nn.Module) -> str:
    weight = module.get_parameter("0.weight")
    assert isinstance(weight, PackedTensor)
    return weight.packed.layout


def test_codes_are_laid_out_for_the_dtype_and_lose_nothing() -> None:
    dense, module = pair(nn.Sequential(nn.Linear(64, 48)))
    half = copy.deepcopy(module).to(torch.bfloat16)
    assert layout(half) == choose.layout_for(parse_scheme("int4-g32"), (48, 64), 2, torch.bfloat16)
    again = copy.deepcopy(half).to(torch.float32)
    assert layout(again) == layout(module)
    exact = dense.get_parameter("0.weight")
    assert torch.equal(half.get_parameter("0.weight").dequantize(), exact.bfloat16())
    assert torch.equal(again.get_parameter("0.weight").dequantize(), exact)
    _, other = pair(nn.Sequential(nn.Linear(64, 48)))
    other.load_state_dict(half.state_dict())
    assert torch.equal(other.get_parameter("0.weight").dequantize(), exact)


@pytest.mark.parametrize("scheme", ["int4-g32", "int8", "int4-asym-g32"])
def test_modules_of_bfloat16_do_all_the_same(scheme: str) -> None:
    dense, module = pair(small(nn.Embedding(48, 64)).to(torch.bfloat16), scheme)
    with torch.no_grad():
        expected = dense(TOKENS)
        program = torch.export.export(module, (TOKENS,))
        torch._dynamo.reset()
        compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
        file = io.BytesIO()
        torch.save(module.state_dict(), file)
        file.seek(0)
        loaded = copy.deepcopy(module)
        loaded.load_state_dict(torch.load(file, weights_only=True))
        for call in (module, compiled, loaded, program.module()):
            found = call(TOKENS)
            assert found.dtype == torch.bfloat16
            assert torch.allclose(found, expected, rtol=0.05, atol=0.02)
    assert not [node for node in program.graph.nodes if str(node.target).startswith(("mpq", "quantized"))]


def test_writing_is_refused() -> None:
    weight = packed(torch.randn(48, 64))
    with pytest.raises(UsageError) as error:
        weight.add_(1.0)
    assert str(error.value) == "aten.add_.Tensor would write to a packed weight (int4-g32): load the artifact with packed=False"
    with pytest.raises(
        UsageError, match=r"a packed weight \(int4-g32\) can only be replaced by one with the same scheme and shape, not Tensor"
    ):
        weight.copy_(torch.zeros(48, 64))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_modules(backend: str) -> None:
    dense, module = pair(small(nn.Embedding(50, 64)))
    torch._dynamo.reset()
    with torch.no_grad():
        assert same(torch.compile(module, backend=backend, fullgraph=True)(TOKENS), dense(TOKENS))


def test_exported_modules_need_operations_of_torch_alone() -> None:
    dense, module = pair(small(nn.Embedding(50, 64)))
    program = torch.export.export(module, (TOKENS,))
    assert not [node for node in program.graph.nodes if str(node.target).startswith(("mpq", "quantized"))]
    assert same(program.module()(TOKENS), dense(TOKENS))
    exported = torch.export.export(dense, (TOKENS,)).module()
    exported.get_submodule("1").weight = module.get_parameter("1.weight")
    assert same(exported(TOKENS), dense(TOKENS))


def test_its_text_says_what_it_is() -> None:
    text = repr(packed(torch.randn(48, 64), "nf4"))
    assert text == "PackedTensor(nf4, shape=[48, 64], dtype=torch.float32, device=cpu, 1,632 bytes)"
