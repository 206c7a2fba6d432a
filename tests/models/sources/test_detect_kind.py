"""What a file holds is told by its content."""

import json
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mpq.errors import ModelError
from mpq.models.sources.detect_kind import shard_remedy, sniff


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)


def refusal(path: str) -> str:
    with pytest.raises(ModelError) as caught:
        sniff(Path(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


LOADABLE = "mpq loads a torch.export archive, TorchScript, a state dict (.pt, .safetensors) or a Hugging Face directory"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (bytes(range(255, 0, -1)) * 9, "not a model file"),
        ("größer\n".encode() * 900, "a text file and not a model"),
        (b"GGUF\x03\x00\x00\x00" + bytes(40), "a GGUF file, which mpq cannot load"),
        (b"\x08\x07\x12\x07pytorch\x1a\x052.0.0" + bytes(9), "an ONNX file, which mpq cannot load"),
        (b"\x89HDF\r\n\x1a\n" + bytes(9), "an HDF5 file, which mpq cannot load"),
        (b"\x93NUMPY\x01\x00", "a NumPy array and not a model"),
    ],
)
def test_a_foreign_file_is_named(content: bytes, what: str) -> None:
    Path("model.pt").write_bytes(content)
    assert refusal("model.pt") == f"model.pt is {what}: {LOADABLE}"


def test_nothing_an_empty_file_and_an_empty_directory_are_refused() -> None:
    Path("empty.pt").touch()
    Path("folder").mkdir()
    assert refusal("nope.pt") == "nope.pt does not exist: check the path of the model"
    assert refusal("empty.pt") == "empty.pt is empty: check the path of the model"
    assert refusal("folder") == "folder is a directory without config.json: give a model file or a Hugging Face directory"


def test_a_zip_without_a_model_is_refused() -> None:
    with zipfile.ZipFile("photos.zip", "w") as archive:
        archive.writestr("a.txt", "x")
    with zipfile.ZipFile("data.npz", "w") as archive:
        archive.writestr("a.npy", "x")
    with zipfile.ZipFile("old.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
    assert refusal("photos.zip") == f"photos.zip is a zip archive without a model: {LOADABLE}"
    assert refusal("data.npz") == "data.npz holds NumPy arrays, not a model: give it as data, with --calib or --data"
    assert refusal("old.pt2") == "old.pt2 was exported by an older torch: export the model again with torch 2.9 or newer"


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_each_kind_is_known_whatever_the_file_is_called() -> None:
    module, x = nn.Linear(2, 3).eval(), torch.ones(1, 2)
    torch.export.save(torch.export.export(module, (x,)), "a.pt2")
    torch.jit.script(module).save("b")  # type: ignore[no-untyped-call]
    torch.save(module.state_dict(), "c")
    torch.save(module.state_dict(), "d", _use_new_zipfile_serialization=False)
    save_file(module.state_dict(), "e")
    Path("f").mkdir()
    Path("f", "config.json").write_text("{}")
    Path("a.pt2").rename("a.txt")
    kinds = {name: sniff(Path(name)) for name in ("a.txt", "b", "c", "d", "e", "f")}
    assert kinds == {"a.txt": "export", "b": "torchscript", "c": "torch", "d": "torch", "e": "safetensors", "f": "hf"}


@pytest.mark.parametrize("header", [b"{not json", b'["a list"]', b'"text"'])
def test_what_only_begins_like_safetensors_is_not(header: bytes) -> None:
    Path("a").write_bytes(struct.pack("<Q", len(header)) + header)
    assert refusal("a").startswith("a is ")


def test_safetensors_that_are_cut_off_are_called_so() -> None:
    save_file({"w": torch.ones(9)}, "whole")
    Path("cut").write_bytes(Path("whole").read_bytes()[:20])
    assert refusal("cut") == "cut is a truncated .safetensors file: save or download the model again"


def test_an_archive_inside_a_truncated_one_is_not_taken_for_it() -> None:
    with zipfile.ZipFile("inner", "w") as archive:
        archive.writestr("x/data.pkl", b"")
    Path("outer").write_bytes(b"PK\3\4" + bytes(100) + Path("inner").read_bytes())
    expected = "outer is a truncated or damaged archive: save or download the model again"
    assert refusal("outer") == expected
    assert refusal_of_cut("inner") == expected.replace("outer", "cut")


def refusal_of_cut(name: str) -> str:
    Path("cut").write_bytes(Path(name).read_bytes()[:-10])
    return refusal("cut")


def test_json_and_long_texts_are_texts() -> None:
    Path("a.json").write_text(json.dumps({"a": ["é"] * 5000}, ensure_ascii=False))
    assert refusal("a.json") == f"a.json is a text file and not a model: {LOADABLE}"


def test_a_list_of_shards_and_a_shard_are_called_so_with_what_to_give_instead() -> None:
    Path("parts").mkdir()
    index = Path("parts/model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    joined = "their folder has no config.json, so merge them into one .safetensors file"
    assert refusal(str(index)) == f"{index} lists the files of a checkpoint: {joined}"
    shard = Path("parts/model-00001-of-00002.safetensors")
    assert shard_remedy(shard) == f"it is one of 2 files of a checkpoint: {joined}"
    Path("parts/config.json").write_text("{}")
    assert refusal(str(index)) == f"{index} lists the files of a checkpoint: give their folder, parts"
    assert shard_remedy(shard) == "it is one of 2 files of a checkpoint: give their folder, parts"
    assert shard_remedy(Path("pytorch_model-00002-of-00003.bin")) == f"it is one of 3 files of a checkpoint: {joined}"
    assert shard_remedy(Path("model-00001-of-00001.safetensors")) is None
    assert shard_remedy(Path("model.safetensors")) is None
