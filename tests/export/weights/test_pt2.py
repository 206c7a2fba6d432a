"""An archive with packed weights runs with torch alone, and computes what the artifact does, to the bit."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mpq
from mpq.data.dataset import Batch
from mpq.export.base import Options
from mpq.export.run import export
from mpq.formats.scheme import parse_scheme
from mpq.tensors.kernels import graph
from mpq.tensors.kernels.codes import Codes
from mpq.tensors.quantized import scales_of
from mpq.tensors.quantizers.registry import quantizer_named
from tests.export.artifacts import by_name, make, save_llama, tokens
from tests.models.small import MODELS
from tests.standing import Standing

ALONE = """
import sys, torch
class Blocked:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] == "mpq":
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
def answer(archive, inputs, outputs):
    module = torch.export.load(archive).module()
    args, kwargs = torch.load(inputs)
    with torch.no_grad():
        torch.save(module(*args, **kwargs), outputs)
"""
Runner = Callable[..., Any]


@pytest.fixture(scope="module")
def alone() -> Iterator[Runner]:
    """What an archive gives, for its inputs, in a process that cannot import mpq."""
    with Standing(ALONE) as process:

        def run(archive: Path, *args: Tensor, **kwargs: Tensor) -> Any:
            inputs, outputs = archive.with_name("inputs.pt"), archive.with_name("outputs.pt")
            torch.save((args, kwargs), inputs)
            process.ask(str(archive), str(inputs), str(outputs))
            return torch.load(outputs)

        yield run


def archived(path: Path, **options: Any) -> Path:
    return export(path, "pt2", path.with_name("packed.pt2"), nearest=False, options=Options(**options)).path


@pytest.mark.parametrize(
    "scheme",
    [
        "int4-g32",
        "int3",
        "int5-asym-g16",
        "int8",
        "int1",
        "ternary-g32",
        "nf4-g32",
        "mxfp4",
        "fp8-e4m3",
        "bf16",
        "int4-g16-s8",
        "nl3-g16-s8",
    ],
)
@pytest.mark.parametrize("shape", [(64, 96), (5, 37)])
def test_the_graphs_dequantization_is_exact(scheme: str, shape: tuple[int, int]) -> None:
    quantized = quantizer_named("rtn").quantize(torch.randn(shape), parse_scheme(scheme))
    parts = quantized.pack()
    filled: Mapping[str, Tensor] = {
        name: graph.padded(part, quantized.scheme) if "codes" in name or "zero" in name else part for name, part in parts.items()
    }
    codes = Codes(
        "stored",
        quantized.scheme,
        shape,
        filled.get("codes", parts.get("values", torch.empty(0))),
        scales_of(filled, quantized.scheme) if "scales" in filled else None,
        filled.get("zero_points"),
    )
    assert torch.equal(graph.dequantize(codes), quantized.dequantize())


@pytest.mark.parametrize("kind", MODELS)
def test_programs_keep_their_inputs_and_compute_the_same(alone: Runner, tmp_path: Path, kind: str) -> None:
    build, inputs = MODELS[kind]
    torch.export.save(torch.export.export(build(), (inputs,)), tmp_path / "model.pt2")
    _, path = make(tmp_path / "model.pt2", Batch((inputs,)), by_name({"0": "int3-asym-g8", "up": "nf4"}, "int4-g8"), tmp_path)
    with torch.no_grad():
        expected = mpq.load(path)(inputs)
    assert torch.equal(alone(archived(path), inputs), expected)


def test_a_dynamic_batch_stays_dynamic(alone: Runner, tmp_path: Path) -> None:
    build, inputs = MODELS["mlp"]
    program = torch.export.export(build(), (inputs,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "model.pt2")
    _, path = make(tmp_path / "model.pt2", Batch((inputs,)), by_name({}, "int4-g8"), tmp_path)
    more = torch.cat([inputs, inputs, inputs])
    with torch.no_grad():
        assert torch.equal(alone(archived(path), more), mpq.load(path)(more))


@pytest.mark.parametrize("tied", [True, False])
def test_a_language_model_takes_tokens_of_any_length(alone: Runner, tmp_path: Path, tied: bool) -> None:
    pytest.importorskip("transformers")
    source = save_llama(tmp_path / "model", tie_word_embeddings=tied, num_hidden_layers=1)
    _, path = make(source, Batch((), {"input_ids": tokens()}), by_name({"v_proj": "int8", "down": "int3-g8"}, "int4-g8"), tmp_path)
    archive = archived(path)
    for inputs in (tokens(1, 5), tokens(3, 9)):
        with torch.no_grad():
            expected = mpq.load(path)(input_ids=inputs).logits
        assert torch.allclose(alone(archive, inputs), expected, rtol=1e-5, atol=1e-5)


def test_weights_take_their_packed_size(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.Linear(512, 512)).eval()
    inputs = torch.randn(2, 512)
    torch.export.save(torch.export.export(module, (inputs,)), tmp_path / "model.pt2")
    _, path = make(tmp_path / "model.pt2", Batch((inputs,)), by_name({}, "int4-g32"), tmp_path)
    assert archived(path).stat().st_size < path.stat().st_size + 60_000 < (tmp_path / "model.pt2").stat().st_size / 4
