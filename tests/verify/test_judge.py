"""What a program makes of codes, and how it runs, is judged beside what the file holds."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from mpq.export.fingerprint import kept_values, layer_facts
from mpq.export.stored.base import Held
from mpq.formats.scheme import parse_scheme
from mpq.records.fingerprint import Fingerprint, InputFacts, OutputFacts
from mpq.tensors.quantized import QuantizedWeight
from mpq.verify.judge import judge
from mpq.verify.programs.base import Loaded

WEIGHT = QuantizedWeight(
    parse_scheme("int4"), (2, 3), torch.tensor([[1, 9, 15], [4, 0, 7]], dtype=torch.uint8), torch.tensor([[0.5], [2.0]]).half()
)


class Program(Loaded):
    """Multiplies by weights that may be wrong, and adds what may be wrong too."""

    def __init__(self, *, weights: float = 1.0, output: float = 0.0, error: str | None = None) -> None:
        self.held = Held({"a": WEIGHT}, {})
        self._weights, self._output, self._error = weights, output, error

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        if self._error is not None:
            raise ValueError(self._error)
        return [inputs[0] @ WEIGHT.dequantize().T + self._output]

    def used(self, place: str) -> Tensor | None:
        return WEIGHT.dequantize() * self._weights

    def layer_outputs(self, inputs: Sequence[Tensor]) -> dict[str, tuple[float, float]]:
        return {"a": (9.0, 9.0)}


@pytest.fixture
def fingerprint() -> Fingerprint:
    from mpq.data.fixed_inputs import FixedInput

    output = FixedInput((2, 3), "float32").tensor() @ WEIGHT.dequantize().T
    facts = OutputFacts("output", [2, 2], float(output.abs().max()), kept_values(output))
    return Fingerprint(1, "onnx", 1e-3, [InputFacts([2, 3], "float32")], [facts], {"layer": layer_facts("a", WEIGHT, (), [1.0, 1.0])})


def kinds(fingerprint: Fingerprint, program: Loaded) -> list[tuple[str, str]]:
    return [(each.kind, each.name) for each in judge("m.onnx", "program 1", fingerprint, program).findings]


def test_a_program_that_is_right_passes(fingerprint: Fingerprint) -> None:
    found = judge("m.onnx", "program 1", fingerprint, Program())
    assert found.line == (
        "m.onnx: program 1 loads it correctly: 1 layers and 0 other tensors are right; outputs differ by at most 0 of their largest value"
    )


def test_other_weights_from_right_codes_name_the_layer(fingerprint: Fingerprint) -> None:
    assert kinds(fingerprint, Program(weights=1.01)) == [("weights", "layer")]


def test_other_outputs_from_right_weights_name_the_first_layer(fingerprint: Fingerprint) -> None:
    assert kinds(fingerprint, Program(output=1.0)) == [("layer output", "layer"), ("outputs", "output")]


def test_a_program_that_fails_is_a_finding(fingerprint: Fingerprint) -> None:
    found = judge("m.onnx", "program 1", fingerprint, Program(error="no such operator")).findings
    assert [(each.kind, each.message) for each in found][-1] == ("load", "the program cannot run it (no such operator)")


def test_a_program_may_compute_more_coarsely_than_the_fingerprint_says(fingerprint: Fingerprint) -> None:
    loaded = Program(output=0.1 * fingerprint.outputs[0].largest)
    assert kinds(fingerprint, loaded) == [("layer output", "layer"), ("outputs", "output")]
    loaded.tolerance = 0.11
    assert kinds(fingerprint, loaded) == []
