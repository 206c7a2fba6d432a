import pytest
import torch
from torch import nn

from mpq.errors import ModelError, NumericsError
from mpq.models.sources.checks import check_sound, state_sha256


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def test_infinity_is_allowed_in_buffers_only() -> None:
    module = small()
    module.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    check_sound(module, "m")
    module.get_parameter("0.weight").data[0, 0] = float("inf")
    with pytest.raises(NumericsError, match=r"m: weight '0\.weight' holds NaN or infinity"):
        check_sound(module, "m")


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
    with pytest.raises(ModelError, match=r"m: '0' \(Linear\) is quantized already: give the model as it was before"):
        check_sound(module, "m")


def test_the_hash_of_a_module_follows_names_shapes_and_values() -> None:
    first, same, other = small(), small(), small()
    other.get_parameter("0.bias").data[0] += 1
    assert state_sha256(first) == state_sha256(same) != state_sha256(other)
    renamed = nn.ModuleDict({"0": first[0], "b": first[2]})
    assert state_sha256(renamed) != state_sha256(first)
