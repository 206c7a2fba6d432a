"""Checks that every loaded model passes."""

import pytest
import torch
from torch import nn

from mpq.errors import ModelError, NumericsError
from mpq.models.sources.checks import check_sound, state_sha256
from mpq.models.sources.load import from_module
from tests.models.small import mlp
from tests.models.sources.test_load import Net


def test_infinity_is_refused_in_weights_and_allowed_in_buffers() -> None:
    net = Net().eval()
    net.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    assert from_module(net).kind == "memory"
    with torch.no_grad():
        net.out.weight[0, 0] = float("inf")
    with pytest.raises(NumericsError, match=r"^Net: weight 'out\.weight' holds NaN or infinity: train or save the model again$"):
        from_module(net)
    nan = Net().eval()
    nan.norm.running_mean = torch.full((4,), float("nan"))
    with pytest.raises(NumericsError, match=r"^Net: buffer 'norm\.running_mean' holds NaN: train or save the model again$"):
        from_module(nan)


def test_an_ordinary_model_is_sound() -> None:
    check_sound(mlp(), "a file")
    check_sound(nn.Identity(), "a file")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_eight_bit_floats_are_looked_at_too(dtype: torch.dtype) -> None:
    module = nn.Module()
    module.w = nn.Parameter(torch.ones(2).to(dtype), requires_grad=False)
    check_sound(module, "a file")
    module.w = nn.Parameter(torch.tensor([1.0, float("nan")]).to(dtype), requires_grad=False)
    with pytest.raises(NumericsError, match=r"^a file: weight 'w' holds NaN or infinity: train or save the model again$"):
        check_sound(module, "a file")


@pytest.mark.parametrize("kind", ["weight", "buffer"])
def test_tensors_without_values_are_named(kind: str) -> None:
    module = nn.Sequential(nn.Linear(2, 2, device="meta" if kind == "weight" else None))
    module.register_buffer("mask", torch.zeros(2, device="meta" if kind == "buffer" else "cpu"))
    name = {"weight": "0.weight", "buffer": "mask"}[kind]
    with pytest.raises(ModelError) as caught:
        check_sound(module, "a file")
    assert str(caught.value) == f"a file: '{name}' is on the meta device and has no values: load the weights first"


def test_integers_are_always_sound() -> None:
    module = nn.Module()
    module.w = nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False)
    module.register_buffer("steps", torch.tensor(3))
    check_sound(module, "a file")


def test_a_hash_is_of_names_dtypes_shapes_and_bytes() -> None:
    def of(**tensors: torch.Tensor) -> str:
        module = nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return state_sha256(module)

    one, two = torch.tensor([1.0, 2.0]), torch.tensor([3.0])
    assert of(a=one, b=two) == of(b=two, a=one)
    hashes = [of(a=one, b=two), of(a=one), of(c=one), of(a=one.view(1, 2)), of(a=one.double()), of(a=one.view(torch.int32)), of(a=one + 1)]
    assert len(set(hashes)) == len(hashes)
    assert all(len(found) == 64 for found in hashes)


def test_a_view_has_the_hash_of_its_values() -> None:
    module, other = nn.Linear(2, 3), nn.Linear(2, 3)
    other.load_state_dict(module.state_dict())
    other.weight.data = module.weight.data.T.contiguous().T
    assert state_sha256(other) == state_sha256(module)


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def test_a_complex_parameter_that_is_not_finite_is_refused() -> None:
    module = small()
    module.register_parameter("c", nn.Parameter(torch.full((2,), complex(0, float("nan")))))
    with pytest.raises(NumericsError, match="weight 'c' holds NaN"):
        check_sound(module, "m")


def test_parameters_without_values_are_refused_with_the_remedy() -> None:
    with pytest.raises(ModelError, match=r"'0\.weight' has no values yet \(a lazy module\): call the model once on a batch first"):
        check_sound(nn.Sequential(nn.LazyLinear(3)), "m")
    with torch.device("meta"):
        module = small()
    with pytest.raises(ModelError, match=r"'0\.weight' is on the meta device"):
        check_sound(module, "m")


@pytest.mark.filterwarnings("ignore")  # whatever torch says of its older ways to quantize
def test_a_module_that_is_quantized_already_is_named() -> None:
    module = torch.ao.quantization.quantize_dynamic(small(), {nn.Linear}, dtype=torch.qint8)  # type: ignore[no-untyped-call]
    with pytest.raises(ModelError, match=r"m: '0' \(Linear\) is already quantized: give the original model"):
        check_sound(module, "m")


def test_tensors_that_artifacts_cannot_hold_are_named_with_the_remedy() -> None:
    sparse = nn.Linear(3, 2).eval()
    sparse.register_buffer("adjacency", torch.eye(3).to_sparse())
    with pytest.raises(ModelError, match=r"'adjacency' has the layout sparse_coo, .* make it dense with \.to_dense\(\)"):
        from_module(sparse)
    unsaved = nn.Linear(3, 2).eval()
    unsaved.register_buffer("adjacency", torch.eye(3).to_sparse(), persistent=False)
    assert from_module(unsaved).kind == "memory"
    expanded = nn.Linear(3, 2).eval()
    expanded.weight = nn.Parameter(torch.ones(2, 1).expand(2, 3), requires_grad=False)
    with pytest.raises(ModelError, match=r"'weight' is expanded, .*: give it its own, with \.clone\(\)"):
        from_module(expanded)
