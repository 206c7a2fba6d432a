import pytest
import torch
from torch import Tensor, nn

from mpq.data.dataset import Batch
from mpq.errors import ModelError
from mpq.models.layers.discover import discover
from mpq.models.layers.unquantized_tensors import dtype_notes, inventory, rest_tensors, source_of, tensor_entry
from mpq.models.sources.load import from_module
from mpq.models.sources.loaded import LoadedModel
from mpq.records.artifact import PROGRAM
from tests.models.small import MODELS, inputs, up_and_down


def batch_of(kind: str) -> Batch:
    return Batch((MODELS[kind][1],))


@pytest.mark.parametrize("kind", MODELS)
def test_layers_and_rest_together_are_the_state_dict_each_storage_once(kind: str) -> None:
    model = from_module(MODELS[kind][0]())
    found = discover(model.module, [batch_of(kind)])
    kept = rest_tensors(model, found.layers)
    names = {name for layer in found.layers for name in layer.parameters} | set(found.aliases) | set(kept)
    assert names == set(model.module.state_dict())
    assert tuple(kept) == found.rest
    rest = inventory(model, found.layers, source=source_of(model, None), quantizer="rtn")
    weights = sum(layer.weights for layer in found.layers)
    assert rest.weights + weights == sum(parameter.numel() for parameter in model.module.parameters())
    total = sum(t.numel() * t.element_size() for t in kept.values())
    assert (rest.original_bytes, rest.data_bytes) == (total, total)


def test_layers_that_are_not_searched_are_stored_as_they_are() -> None:
    model = from_module(up_and_down())
    found = discover(model.module, [batch_of("conv")])
    kept = rest_tensors(model, found.layers[1:])
    assert torch.equal(kept["down.weight"], model.module.get_parameter("down.weight"))


def test_the_program_is_stored_but_is_no_part_of_the_model() -> None:
    model = LoadedModel(up_and_down(), "export", "a" * 64, program=b"program")
    found = discover(model.module, [batch_of("conv")])
    rest = inventory(model, found.layers, source=source_of(model, None), quantizer="rtn")
    assert rest_tensors(model, found.layers)[PROGRAM].numpy().tobytes() == b"program"
    assert rest.data_bytes == rest.original_bytes + len(b"program")


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float64, "F64"),
        (torch.bfloat16, "BF16"),
        (torch.int16, "I16"),
        (torch.bool, "BOOL"),
        (torch.float8_e5m2, "F8_E5M2"),
        (torch.complex64, "C64"),
    ],
)
def test_every_dtype_of_safetensors_is_stored(dtype: torch.dtype, expected: str) -> None:
    assert tensor_entry("a", torch.zeros(2, 3, dtype=dtype)).stored[1:] == (expected, (2, 3))


def test_a_dtype_that_safetensors_does_not_have_is_refused() -> None:
    with pytest.raises(ModelError) as error:
        tensor_entry("phase", torch.zeros(2, dtype=torch.complex128))
    message = "which an artifact cannot hold: convert it to a floating or integer dtype"
    assert str(error.value) == f"tensor 'phase' has dtype torch.complex128, {message}"


class Named(nn.Module):
    """A layer, and beside it a buffer with the name that the layer's scales would have."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 4)
        self.body.register_buffer("scales", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x) * self.body.get_buffer("scales")
        return found


def test_a_tensor_in_the_place_of_a_layers_part_is_refused() -> None:
    model = from_module(Named().eval())
    found = discover(model.module, [Batch((inputs(3, 8),))])
    with pytest.raises(ModelError) as error:
        inventory(model, found.layers, source=source_of(model, None), quantizer="rtn")
    message = "would be stored under the name of a part of layer 'body': rename it, or leave the layer out with --ignore"
    assert str(error.value) == f"tensor 'body.scales' {message}"


def test_matrices_that_are_not_searched_because_of_their_dtype_are_named_with_their_share() -> None:
    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.waves = nn.Parameter(torch.ones(4, 5, dtype=torch.complex64))
            self.wide = nn.Parameter(torch.ones(4, 5, dtype=torch.float64))
            self.short = nn.Parameter(torch.ones(1, 5, dtype=torch.float64))
            self.plain = nn.Parameter(torch.ones(4, 5))
            self.register_buffer("codes", torch.ones(4, 5, dtype=torch.int8))
            self.register_buffer("mask", torch.ones(4, 5, dtype=torch.bool))

    found = "not searched because of their dtype, but stored unchanged: waves (complex64), wide (float64)"
    assert dtype_notes(Held(), [], 2001) == [f"{found} (320 bytes, 16.0% of all)"]
    assert dtype_notes(Held(), [], 2000) == [f"{found}, codes (int8) (340 bytes, 17.0% of all)"]
    assert dtype_notes(up_and_down(), [], 100) == []


def test_the_source_says_what_is_needed_to_find_the_model() -> None:
    model = LoadedModel(nn.Identity(), "state_dict", "a" * 64, factory="models:make")
    assert source_of(model, "../m.pt") == {"path": "../m.pt", "sha256": "a" * 64, "kind": "state_dict", "factory": "models:make"}
    assert source_of(LoadedModel(nn.Identity(), "memory", "b" * 64), None) == {"sha256": "b" * 64, "kind": "memory"}
