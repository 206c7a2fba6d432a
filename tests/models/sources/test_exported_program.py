import hashlib
import io
import lzma
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.errors import FormatError, ModelError, NumericsError, UsageError
from mpq.models.layers.discover import discover
from mpq.models.sources.load import load_model
from mpq.models.sources.rebuild import rebuild_module


class Small(nn.Module):
    """Ties, a constant, a lifted constant, a non-persistent, a scalar and an empty buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight
        self.norm = nn.LayerNorm(8)
        self.drop = nn.Dropout(0.5)
        self.scale: Tensor
        self.position: Tensor
        self.register_buffer("scale", torch.tensor(3.0))
        self.register_buffer("empty", torch.zeros(0, 2))
        self.register_buffer("position", torch.randn(8), persistent=False)
        self.constant = torch.randn(8)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embed(tokens) * self.scale + self.position + self.constant + torch.tensor([2.0])
        logits: Tensor = self.head(self.drop(self.norm(hidden)))
        return logits


TOKENS = torch.arange(6).reshape(2, 3)


def export(path: Path, module: nn.Module, *inputs: Any) -> Path:
    dynamic = tuple({0: torch.export.Dim.AUTO} for _ in inputs)
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(module, inputs, dynamic_shapes=dynamic), buffer)
    path.write_bytes(buffer.getvalue())
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return export(tmp_path_factory.mktemp("export") / "model.anything", Small().eval(), TOKENS)


def test_an_export_archive_is_recognised_by_content_and_brings_its_example_inputs(archive: Path) -> None:
    loaded = load_model(archive)
    assert (loaded.kind, loaded.path, loaded.factory, loaded.config) == ("export", archive, None, None)
    assert loaded.example_inputs is not None
    assert torch.equal(loaded.example_inputs[0][0], TOKENS)
    assert not any(module.training for module in loaded.module.modules())
    assert loaded.module(torch.zeros(5, 3, dtype=torch.long)).shape == (5, 3, 20)


def test_the_program_is_the_same_bytes_in_every_process_and_holds_no_weights_and_no_paths(archive: Path) -> None:
    loaded = load_model(archive)
    code = f"import hashlib, mpq; print(hashlib.sha256(mpq.load_model({str(archive)!r}).program).hexdigest())"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[2])}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert loaded.program is not None
    assert other.stdout.strip() == hashlib.sha256(loaded.program).hexdigest()
    assert len(loaded.program) < archive.stat().st_size / 3
    assert Path(__file__).name.encode() not in lzma.decompress(loaded.program)
    assert lzma.LZMADecompressor(memlimit=1 << 20).decompress(loaded.program)  # a window of its own size, not of 64 MiB


def test_a_rebuilt_module_is_zero_contiguous_and_writable_and_computes_the_same_once_its_weights_are_in(archive: Path) -> None:
    loaded = load_model(archive)
    rebuilt = rebuild_module("export", program=loaded.program, config=None)
    original = loaded.module.state_dict()
    assert list(rebuilt.state_dict()) == list(original)
    for name, tensor in rebuilt.state_dict().items():
        assert tensor.is_contiguous()
        assert not tensor.any()
        assert (tensor.shape, tensor.dtype) == (original[name].shape, original[name].dtype)
    rebuilt.load_state_dict(original)
    assert torch.equal(rebuilt(TOKENS), loaded.module(TOKENS))


def test_ties_survive_the_rebuild(archive: Path) -> None:
    rebuilt = rebuild_module("export", program=load_model(archive).program, config=None)
    state = rebuilt.state_dict()
    assert state["embed.weight"].data_ptr() == state["head.weight"].data_ptr()
    assert [name for name, _ in rebuilt.named_parameters()] == [name for name, _ in load_model(archive).module.named_parameters()]


@pytest.mark.filterwarnings("ignore:No complete tensor found:UserWarning")  # from torch, on saving such weights
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_16_bit_convolution_with_channels_last_weights_rebuilds_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    convolution = nn.Conv2d(3, 4, 3)
    convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)
    module = nn.Sequential(convolution, nn.BatchNorm2d(4)).eval().to(dtype)
    image = torch.randn(2, 3, 6, 6, dtype=dtype)
    loaded = load_model(export(tmp_path / "cnn", module, image))
    rebuilt = rebuild_module("export", program=loaded.program, config=None)
    rebuilt.load_state_dict(loaded.module.state_dict())
    assert {parameter.dtype for parameter in rebuilt.parameters()} == {dtype}
    assert torch.equal(rebuilt(image), loaded.module(image))


class Constants(nn.Module):
    """Matrices that are an attribute, a buffer that is not saved, and one that each call writes to; and small constants."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.plain = torch.randn(6, 5)
        self.numbers = torch.arange(10).reshape(5, 2)
        self.unsaved: Tensor
        self.cache: Tensor
        self.register_buffer("unsaved", torch.randn(5, 3), persistent=False)
        self.register_buffer("cache", torch.zeros(2, 3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = (self.first(x) @ self.plain + self.numbers.sum()) @ self.unsaved * torch.tensor([[2.0]])
        self.cache.copy_(self.cache + found.sum())
        return found


def test_constants_that_may_be_weights_become_buffers_and_are_searched(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = Constants().eval(), torch.randn(2, 4)
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(module, (x,)), path)
    loaded = load_model(path)
    assert {name: tuple(tensor.shape) for name, tensor in loaded.module.state_dict().items()} == {
        "first.weight": (6, 4),
        "first.bias": (6,),
        "plain": (6, 5),
        "unsaved": (5, 3),
    }
    assert torch.equal(loaded.module(x), module(x))
    found = discover(loaded.module, [Batch((x,))])
    assert [(layer.name, layer.matrix) for layer in found.layers] == [("first", (6, 4)), ("plain", (5, 6)), ("unsaved", (3, 5))]
    assert loaded.program is not None
    rebuilt = rebuild_module("export", program=loaded.program, config=None)
    rebuilt.load_state_dict(loaded.module.state_dict())
    assert torch.equal(rebuilt(x), module(x))


def test_a_program_exported_in_training_mode_is_refused(tmp_path: Path) -> None:
    path = export(tmp_path / "train", nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)), torch.randn(3, 2))
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert str(caught.value) == f"{path} was exported in training mode (aten.dropout.default is active): export it after model.eval()"


def test_nan_in_a_weight_is_named(tmp_path: Path) -> None:
    module = nn.Linear(2, 2).eval()
    nn.init.constant_(module.weight, float("nan"))
    path = export(tmp_path / "nan", module, torch.randn(3, 2))
    with pytest.raises(NumericsError) as caught:
        load_model(path)
    assert str(caught.value) == f"{path}: weight 'weight' holds NaN or infinity: train or save the model again"


def test_a_factory_beside_an_archive_is_refused(archive: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_model(archive, factory="a:b")
    assert str(caught.value) == f"{archive} is a torch.export archive and contains its own module: leave out --builder a:b"


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_a_truncated_archive_is_refused(archive: Path, tmp_path: Path, share: float) -> None:
    content = archive.read_bytes()
    path = tmp_path / "cut"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert str(caught.value) == f"{path} is a truncated or damaged archive: save or download the model again"


def test_a_damaged_program_is_refused(archive: Path) -> None:
    program = load_model(archive).program
    assert program is not None
    for content in (program[:100], b"", b"nonsense"):
        with pytest.raises(FormatError) as caught:
            rebuild_module("export", program=content, config=None)
        assert str(caught.value) == "the program in the artifact is damaged: write the artifact again with `mpq apply`"
