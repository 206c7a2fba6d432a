"""Malicious model files: refused with one line, before anything of theirs runs; ordinary ones of the same make load."""

import contextlib
import io
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from mpq.data.array_files import read_arrays
from mpq.errors import DataError, ModelError, MpqError
from mpq.models.sources.exported_program import rebuild_program, strip_program
from mpq.models.sources.load import load_model
from tests import hostile

ADVICE = ("weights_only", "add_safe_globals", "damaged")
SECONDS = 5.0


def refusal(path: Path, marker: Path) -> str:
    """The message with which a model file is refused; nothing of it ran."""
    with pytest.raises(MpqError) as caught:
        load_model(path)
    assert not marker.exists()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


@pytest.mark.parametrize("name", [name for name in hostile.PROGRAMS if name not in hostile.HARMLESS])
def test_a_malicious_exported_program_is_refused(name: str, tmp_path: Path) -> None:
    path = hostile.PROGRAMS[name](tmp_path, tmp_path / "marker")
    assert str(path) in refusal(path, tmp_path / "marker")


@pytest.mark.parametrize("name", hostile.HARMLESS)
def test_python_in_an_exported_program_that_is_left_out_never_runs(name: str, tmp_path: Path) -> None:
    module = load_model(hostile.PROGRAMS[name](tmp_path, tmp_path / "marker")).module
    assert module(torch.randn(2, 4)).shape == (2, 4)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", hostile.PROGRAMS)
def test_a_malicious_program_of_an_artifact_is_refused(name: str, tmp_path: Path) -> None:
    import zlib

    content = zlib.compress(hostile.PROGRAMS[name](tmp_path, tmp_path / "marker").read_bytes())
    if name in hostile.HARMLESS:
        rebuild_program(content)
    else:
        with pytest.raises(ModelError):
            rebuild_program(content)
    assert not (tmp_path / "marker").exists()


def test_the_same_archive_unchanged_loads_with_its_inputs(tmp_path: Path) -> None:
    path = hostile.write(tmp_path / "model.pt2", hostile.zipped(hostile.export_records()))
    loaded = load_model(path)
    assert loaded.example_inputs is not None
    assert loaded.example_inputs[0][0].shape == (2, 4)
    assert loaded.module(torch.randn(2, 4)).shape == (2, 4)


def test_an_archive_with_several_programs_and_files_of_the_user_loads_the_one_called_model(tmp_path: Path) -> None:
    from torch.export.pt2_archive._package import package_pt2

    first, second = (torch.export.export(module.eval(), (torch.randn(2, 4),)) for module in (hostile.Small(), nn.Linear(4, 7)))
    buffer = io.BytesIO()
    package_pt2(buffer, exported_programs={"model": first, "second": second}, extra_files={"notes.txt": "made on a Monday"})
    loaded = load_model(hostile.write(tmp_path / "two.pt2", buffer.getvalue()))
    assert loaded.module(torch.randn(2, 4)).shape == (2, 4)


def test_a_compressed_archive_loads(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "model.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in hostile.export_records().items():
            archive.writestr(name, content)
    assert load_model(tmp_path / "model.pt2").module(torch.randn(2, 4)).shape == (2, 4)


@pytest.mark.parametrize("name", hostile.SCRIPTS)
def test_malicious_torchscript_is_refused(name: str, tmp_path: Path) -> None:
    path = hostile.SCRIPTS[name](tmp_path, tmp_path / "marker")
    assert str(path) in refusal(path, tmp_path / "marker")


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize(
    "module",
    [
        hostile.Small(),
        nn.Sequential(nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4), nn.GELU(), nn.Upsample(scale_factor=2), nn.Flatten(), nn.Softmax(-1)),
        nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 1, enable_nested_tensor=False),
        nn.LSTM(4, 3),
        nn.MultiheadAttention(4, 2),
    ],
    ids=lambda module: type(module).__name__,
)
def test_ordinary_torchscript_loads_without_trust(module: nn.Module, tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(module.eval()), tmp_path / "model.pt")
    assert load_model(tmp_path / "model.pt").kind == "torchscript"


@pytest.mark.parametrize("name", hostile.PICKLES)
def test_a_malicious_pickle_is_refused_as_a_model_and_as_data(name: str, tmp_path: Path) -> None:
    path = hostile.PICKLES[name](tmp_path, tmp_path / "marker")
    message = refusal(path, tmp_path / "marker")
    with pytest.raises(DataError) as caught:
        read_arrays(path, str(path))
    assert not (tmp_path / "marker").exists()
    for text in (message, str(caught.value)):
        assert not any(advice in text for advice in ADVICE)
    if "twice" not in name and "case" not in name and "TorchScript" not in name:
        assert "holds pickled Python objects (" in message
        assert "--trust" in message


@pytest.mark.parametrize("name", hostile.DIRECTORIES)
def test_a_malicious_hugging_face_directory_is_refused(name: str, tmp_path: Path) -> None:
    path = hostile.DIRECTORIES[name](tmp_path, tmp_path / "marker")
    assert str(path) in refusal(path, tmp_path / "marker")


@pytest.mark.parametrize("name", hostile.BOMBS)
def test_a_file_that_claims_more_than_it_holds_is_refused_at_once(name: str, tmp_path: Path) -> None:
    path = hostile.BOMBS[name](tmp_path, tmp_path / "marker")
    begun = time.monotonic()
    refusal(path, tmp_path / "marker")
    if name not in ("a header as large as the sparse file",):  # which is no data either, but is read as text
        with pytest.raises(DataError):
            read_arrays(path, str(path))
    assert time.monotonic() - begun < SECONDS


@pytest.mark.parametrize("machine", ["zlib", "lzma"])
def test_a_program_that_unpacks_to_a_gigabyte_is_refused(machine: str) -> None:
    import importlib

    content = importlib.import_module(machine).compress(bytes(1 << 29))
    with pytest.raises(MpqError, match="the program in the artifact unpacks to more than 268,435,456 bytes"):
        rebuild_program(content)


def test_a_program_whose_constants_are_larger_than_that_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpq.models.sources.exported_program.PROGRAM_BYTES", 1000)
    assert strip_program(torch.export.export(hostile.Small().eval(), (torch.randn(2, 4),))) is None


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*:UserWarning")
@pytest.mark.parametrize("number", range(len(hostile.LIVE)))
def test_the_same_files_do_run_where_the_user_trusts_them(number: int, tmp_path: Path) -> None:
    path = hostile.LIVE[number](tmp_path, tmp_path / "marker")
    with contextlib.suppress(MpqError):
        load_model(path, trust=True).module(torch.randn(2, 4))
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vocab_size", 10**12),
        ("hidden_size", 10**6),
        ("intermediate_size", 10**9),
        ("num_hidden_layers", 10**9),
        ("max_position_embeddings", 10**12),
    ],
)
@pytest.mark.parametrize("named", [True, False], ids=["class named", "class looked up"])
def test_a_configuration_of_more_parameters_than_the_files_hold_is_refused_at_once(
    key: str, value: int, named: bool, tmp_path: Path
) -> None:
    import json

    path = hostile.DIRECTORIES["a model type of another type"](tmp_path, tmp_path / "marker")
    config = json.loads((path / "config.json").read_text()) | {"model_type": "bert", key: value}
    if not named:
        del config["architectures"]
    (path / "config.json").write_text(json.dumps(config))
    begun = time.process_time()
    message = refusal(path, tmp_path / "marker")
    assert "makes more than" in message
    assert "parameters" in message
    assert time.process_time() - begun < 4 * SECONDS


def test_an_index_that_names_a_file_of_thousands_of_characters_is_refused(tmp_path: Path) -> None:
    import json

    path = hostile.DIRECTORIES["a model type of another type"](tmp_path, tmp_path / "marker")
    (path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    (path / "model.safetensors").rename(path / "other.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "x" * 5000}}))
    with pytest.raises(ModelError, match="lacks xxxx"):
        load_model(path)


@pytest.mark.parametrize("content", [lambda view: view, lambda view: {"a": [view]}, lambda view: (torch.ones(2), view)])
def test_a_view_of_terabytes_is_refused_before_it_is_used(content: Callable[[torch.Tensor], object], tmp_path: Path) -> None:
    torch.save(content(torch.zeros(1).expand(125_000_000_000, 8)), tmp_path / "view.pt")
    with pytest.raises(DataError, match=r"a tensor of 4,000,000,000,000 bytes in a storage of 4"):
        read_arrays(tmp_path / "view.pt", "view.pt")
    torch.save(content(torch.ones(1).expand(1000, 8)), tmp_path / "small.pt")
    assert read_arrays(tmp_path / "small.pt", "small.pt") is not None


def test_a_header_that_is_longer_than_its_file_is_refused_as_data(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes((1 << 40).to_bytes(8, "little") + b'{"a":"' + bytes(100))
    with pytest.raises(DataError, match="its header says 1,099,511,627,776 bytes, and the file has 114"):
        read_arrays(tmp_path / "a.safetensors", "a.safetensors")
