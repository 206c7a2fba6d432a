from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mpq
from mpq.data.batch import Batch
from mpq.errors import DataError, ModelError
from mpq.models.running.forward import forward, inputs_of, named


class Returns(nn.Module):
    """Returns what it was made with, whatever it is given."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> Any:
        return self.output


@dataclass
class Detection:
    boxes: Tensor
    count: int
    scores: list[Tensor]


X = Batch((torch.zeros(2, 3),))
A, B, IDS = torch.ones(2, 4), torch.zeros(2, 5), torch.zeros(2, 4, dtype=torch.int64)


def shapes(output: Any) -> list[list[int]]:
    return [list(tensor.shape) for tensor in forward(Returns(output), X)]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (A, [[2, 4]]),
        ((A, IDS, [B]), [[2, 4], [2, 5]]),
        ({"b": B, "a": A}, [[2, 5], [2, 4]]),
        ({"loss": B, "logits": A, "past_key_values": (B, B)}, [[2, 5], [2, 4]]),
        ({"last_hidden_state": A, "pooler_output": B}, [[2, 4], [2, 5]]),
        ({"embedding": A, "past_key_values": (B, B)}, [[2, 4]]),
        (OrderedDict(logits=None, boxes=B), [[2, 5]]),
        (Detection(A, 3, [B]), [[2, 4], [2, 5]]),
    ],
)
def test_outputs_are_floats_in_their_own_order(output: Any, expected: list[list[int]]) -> None:
    assert shapes(output) == expected


def test_no_gradients_are_recorded() -> None:
    (output,) = forward(nn.Linear(3, 2), X)
    assert not output.requires_grad


def test_lists_with_one_value_for_each_sample_are_stacked() -> None:
    batch = Batch((torch.zeros(2, 3),), listed=("",))
    found = forward(Returns([{"a": torch.ones(4), "b": torch.zeros(1, 2)}, {"a": torch.zeros(4), "b": torch.ones(1, 2)}]), batch)
    assert {name: tensor.tolist() for name, tensor in named(found).items()} == {"a": [[1] * 4, [0] * 4], "b": [[[0, 0]], [[1, 1]]]}
    assert named(forward(Returns((torch.ones(4), torch.zeros(4))), batch))["output"].shape == (2, 4)
    for other in ([torch.ones(4)], [torch.ones(4), torch.ones(3)]):
        with pytest.raises(ModelError, match="output 'output' must have one tensor of the same shape for each of 2 samples, but it has "):
            forward(Returns(other), batch)


def test_whole_numbers_in_lists_are_named_once() -> None:
    batch = Batch((torch.zeros(2, 3),), listed=("found",))
    one = {"box": torch.ones(4), "label": torch.tensor(1)}
    outputs = forward(Returns({"found": [one, one], "logits": torch.ones(2, 5)}), batch)
    assert (outputs.names, outputs.whole_numbers) == (("found.box", "logits"), ("found.label",))


def test_a_parameter_is_an_output_without_gradients() -> None:
    scale = nn.Parameter(torch.ones(2, 3))
    found = forward(Returns({"scale": scale, "count": torch.tensor([1, 2])}), Batch((torch.zeros(2, 3),)))
    assert not found[0].requires_grad
    assert torch.equal(found[0], scale)
    assert (found.names, found.whole_numbers) == (("scale",), ("count",))
    assert forward(Returns(scale), Batch((torch.zeros(2, 3),)), gradients=True)[0].requires_grad


def test_a_cache_is_not_asked_for_where_the_signature_knows_it() -> None:
    class Cached(nn.Module):
        def forward(self, x: Tensor, use_cache: bool = True) -> Tensor:
            return torch.tensor(float(use_cache))

    assert forward(Cached(), X)[0] == 0
    assert forward(Cached(), Batch(X.args, {"use_cache": True}))[0] == 1


def test_integers_alone_are_no_output() -> None:
    with pytest.raises(
        ModelError, match=r"^the model returns no floating-point tensor, so no error can be measured: wrap it to return its"
    ):
        forward(Returns(IDS), X)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_complex_sparse_and_nested_outputs_become_dense_tensors_of_real_numbers() -> None:
    given = {
        "c": torch.complex(A, 2 * A),
        "s": A.to_sparse(),
        "n": torch.nested.as_nested_tensor([A[0], A[0, :2]]),
        "ids": IDS,
        "on": A > 0,
    }
    outputs = forward(Returns(given), X)
    found = named(outputs)
    assert torch.equal(found["c"], torch.stack((A, 2 * A), -1))
    assert torch.equal(found["s"], A)
    assert torch.equal(found["n"], torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0]]))
    assert outputs.names == ("c", "s", "n")
    assert outputs.complex == ("c",)
    assert outputs.whole_numbers == ("ids", "on")


def test_a_wrong_shape_is_named_with_torchs_reason() -> None:
    message = r"^the model does not accept a batch of float32 \[2, 3\]: mat1 and mat2 shapes cannot be multiplied \(2x3 and 4x2\)$"
    with pytest.raises(DataError, match=message):
        forward(nn.Linear(4, 2), X)


def test_a_wrong_name_is_reported() -> None:
    with pytest.raises(DataError, match=r"^the model does not accept a batch of y: float32 \[2, 4\]: .*unexpected keyword argument 'y'$"):
        forward(nn.Linear(4, 2), Batch((), {"y": A}))


def test_exported_programs_say_which_inputs_they_take() -> None:
    program = torch.export.export(nn.Linear(4, 2), (torch.zeros(2, 4),)).module()
    message = r": an exported program takes exactly the inputs that it was exported with, in number and nesting$"
    with pytest.raises(DataError, match=message):
        forward(program, Batch((A, A)))
    assert len(forward(program, Batch((A,)))) == 1


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_torchscript_traceback_is_reduced_to_its_cause() -> None:
    script = torch.jit.script(nn.Linear(4, 2))
    with pytest.raises(DataError, match=r"float32 \[2, 3\]: mat1 and mat2 shapes cannot be multiplied \(2x3 and 4x2\)$"):
        forward(script, X)


def test_a_long_message_is_shortened() -> None:
    class Talks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("word " * 200)

    with pytest.raises(DataError) as caught:
        forward(Talks(), X)
    assert len(str(caught.value)) < 300


def test_a_padded_batch_through_a_transformer_encoder_is_analyzed() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.body = nn.TransformerEncoder(layer, 1)

        def forward(self, x: Tensor, src_key_padding_mask: Tensor) -> Tensor:
            found: Tensor = self.body(x, src_key_padding_mask=src_key_padding_mask)
            return found

    x = torch.randn(8, 5, 8, generator=torch.Generator().manual_seed(0))
    padding = torch.arange(5) >= torch.tensor([5, 4, 3, 2, 5, 4, 3, 2]).unsqueeze(1)
    module = Encoder().eval()
    table = mpq.analyze(module, [(x, padding)], candidates=("4",), quantizer="rtn", method="measure", metric="relative_mse")
    assert len(table.layers) == 4
    assert "70% of the positions count" in table.header.data["description"]
    assert torch.backends.mha.get_fastpath_enabled()


class Pair(nn.Module):
    """Takes two inputs."""

    def forward(self, x: Tensor, scale: Tensor, *more: Tensor) -> Tensor:
        return x * scale


def test_inputs_are_named_where_some_have_names() -> None:
    assert inputs_of(Pair(), (1, 2), {}) == (1, 2)
    assert inputs_of(Pair(), (1,), {"scale": 2}) == {"x": 1, "scale": 2}
    assert inputs_of(Pair(), (), {"scale": 2}) == {"scale": 2}
    assert inputs_of(Pair(), (1, 2, 3), {"other": 4}) is None
