"""A program for ExecuTorch holds the artifact's codes and runs by ExecuTorch's own runtime."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mpq
from mpq.data.dataset import Batch
from mpq.export.abilities import ExportError
from mpq.export.run import Exported, export
from mpq.export.weights.executorch.weights import fits_positive, with_positive_scales
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.registry import quantizer_named
from tests.export.artifacts import by_name, kl_divergence, make, save_llama, tokens
from tests.standing import Standing

installed = pytest.mark.skipif(importlib.util.find_spec("executorch") is None, reason="executorch is not installed")
# In one process for all tests, apart from theirs, since executorch and torchao warn while they are imported.
RUN = """
import sys, torch
import executorch.kernels.quantized
from executorch.runtime import Runtime
def answer(program, inputs, outputs):
    method = Runtime.get().load_program(program).load_method("forward")
    torch.save([method.execute([given])[0].clone() for given in torch.load(inputs)], outputs)
"""
Runner = Callable[[Path, list[Tensor]], list[Tensor]]


@pytest.fixture(scope="module")
def run() -> Iterator[Runner]:
    """What a program gives, for each input, in ExecuTorch's own runtime."""
    with Standing(RUN) as process:

        def answers(program: Path, inputs: list[Tensor]) -> list[Tensor]:
            given, found = program.with_name("inputs.pt"), program.with_name("outputs.pt")
            torch.save(inputs, given)
            process.ask(str(program), str(given), str(found))
            outputs: list[Tensor] = torch.load(found)
            return outputs

        yield answers


class Mixed(nn.Module):
    """Every kind of layer that is packed, one that is not, and a bias under a row of negative scale."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 64, 3, padding=1)
        self.norm = nn.BatchNorm2d(64)
        self.depth = nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.inner = nn.Linear(64, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Scores."""
        found = self.depth(torch.relu(self.norm(self.first(images)))).mean((2, 3))
        scores: Tensor = self.head(torch.relu(self.inner(found)))
        return scores


def mixed(folder: Path, quantizer: str = "rtn") -> Path:
    torch.manual_seed(0)
    images = torch.randn(4, 3, 8, 8)
    program = torch.export.export(Mixed().eval(), (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, folder / "model.pt2")
    schemes = {"first": "int8", "depth": "int8", "inner": "int4-g32", "head": "int4"}
    return make(folder / "model.pt2", Batch((images,)), by_name(schemes, "int8"), folder, quantizer=quantizer)[1]


@pytest.mark.parametrize("text", ["int4", "int8", "int3", "int4-g32"])
def test_positive_scales_and_signs_hold_the_same_weight(text: str) -> None:
    weight = quantizer_named("rtn").quantize(torch.randn(6, 64, generator=torch.Generator().manual_seed(0)), parse_scheme(text))
    assert weight.scales is not None
    flipped = torch.where(torch.arange(6)[:, None] % 2 == 0, -weight.scales, weight.scales)
    weight = QuantizedWeight(weight.scheme, weight.matrix, weight.codes, flipped)
    if weight.scheme.group_size is None:
        weight.codes[0, 0] = 0  # the lowest code, which has no opposite
    found = with_positive_scales(weight)
    assert bool((found.scales > 0).all())
    assert (found.signs is not None) == (weight.scheme.group_size is None)
    signs = torch.ones(6) if found.signs is None else found.signs
    values = found.codes.float() * found.scales.repeat_interleave(64 // found.scales.shape[1], dim=1) * signs[:, None]
    assert torch.equal(values, weight.dequantize())
    assert int(found.codes.min()) >= -(2 ** (weight.scheme.bits - 1))


def test_a_group_of_negative_scale_with_the_lowest_code_does_not_fit() -> None:
    codes = torch.full((1, 64), 9, dtype=torch.uint8)
    weight = QuantizedWeight(Scheme("int4", 32), (1, 64), codes, torch.tensor([[-1.0, 1.0]], dtype=torch.half))
    assert fits_positive(weight)
    codes[0, 40] = 0
    assert fits_positive(weight)
    codes[0, 3] = 0
    assert not fits_positive(weight)


@installed
def test_a_model_of_images_runs_near_the_artifact(run: Runner, tmp_path: Path) -> None:
    path = mixed(tmp_path)
    done = export(path, "executorch")
    assert [note for note in done.notes if "float32 values" in note] == [
        "stored as float32 values, because no kernel supports their codes: depth"
    ]
    assert "it takes inputs of shape [1, 3, 8, 8]" in done.notes
    images = torch.randn(3, 1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = mpq.load(path)
    for given, found in zip(images, run(done.path, list(images)), strict=True):
        with torch.no_grad():
            torch.testing.assert_close(found, expected(given), rtol=0, atol=0.02)


@installed
def test_what_xnnpack_does_not_hold_is_listed_or_rounded_anew(run: Runner, tmp_path: Path) -> None:
    path = mixed(tmp_path, "mse")  # it also tries negative scales
    with pytest.raises(ExportError, match=r"executorch cannot represent inner \(int4-g32\): --nearest"):
        export(path, "executorch")
    done = export(path, "executorch", nearest=True)
    assert {name: str(new) for name, (_, new) in done.replaced.items()} == {"inner": "int8"}
    assert any(note.startswith("rounded again as int8 per row") and note.endswith(": inner") for note in done.notes)
    assert any("--quantizer rtn" in note for note in done.notes)
    given = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(run(done.path, [given])[0], mpq.load(path)(given), rtol=0, atol=0.03)


@installed
def test_a_language_model_takes_tokens_of_any_length(run: Runner, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    source = save_llama(tmp_path / "model", tie_word_embeddings=True, num_hidden_layers=1)
    schemes = by_name({"embed": "int8", "v_proj": "int8", "down": "int4"}, "int4-g32")
    _, path = make(source, Batch((), {"input_ids": tokens()}), schemes, tmp_path)
    done: Exported = export(path, "executorch")
    assert any("stored once for each use" in note for note in done.notes)
    assert "it takes input_ids of shape [1, 1 to 64]" in done.notes
    inputs = [tokens(1, 5), tokens(1, 17)]
    for given, found in zip(inputs, run(done.path, inputs), strict=True):
        with torch.no_grad():
            assert kl_divergence(mpq.load(path)(input_ids=given).logits, found) < 0.01


@installed
@pytest.mark.parametrize("text", ["int8", "int4-g16"])
def test_an_embedding_alone_gives_the_artifacts_rows(run: Runner, tmp_path: Path, text: str) -> None:
    module = nn.Embedding(50, 32).eval()
    words = torch.arange(10)[None]
    torch.export.save(torch.export.export(module, (words,)), tmp_path / "model.pt2")
    _, path = make(tmp_path / "model.pt2", Batch((words,)), by_name({}, text), tmp_path)
    done = export(path, "executorch")
    with torch.no_grad():
        torch.testing.assert_close(run(done.path, [words])[0], mpq.load(path)(words), rtol=1e-6, atol=1e-7)
