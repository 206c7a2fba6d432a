import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpq.errors import FormatError
from mpq.records.artifact import ArtifactHeader
from mpq.records.artifact_files import artifact_bytes, artifact_files, is_index, is_plain_name, read_header
from mpq.records.artifact_layout import header, layer_entries
from mpq.records.layer import Layer
from tests.small import linear, schemes

INDEX = "m.mpq.safetensors.index.json"
FACTS = ArtifactHeader({"sha256": "a" * 64, "kind": "hf"}, "rtn", (), {}, {"tied": "a"}, {"hidden": 4})


def part(path: Path, *layers: Layer) -> int:
    """One file of an artifact, with int4 layers of zeros; its size."""
    facts = replace(FACTS, layers=layers, schemes=dict.fromkeys([layer.name for layer in layers], schemes("int4")[0]))
    entries = [entry for layer in layers for entry in layer_entries(layer.name, layer.matrix, facts.schemes[layer.name])]
    return path.write_bytes(header(entries, facts.to_metadata()) + bytes(sum(entry.stored.bytes for entry in entries)))


def index(folder: Path, weight_map: dict[str, str], **metadata: Any) -> Path:
    path = folder / INDEX
    path.write_text(json.dumps({"metadata": {"mpq_index": 1, **metadata}, "weight_map": weight_map}))
    return path


def refused(path: Path) -> str:
    with pytest.raises(FormatError) as caught:
        read_header(path)
    return str(caught.value)


def test_a_single_file_is_itself_even_where_there_is_none() -> None:
    assert artifact_files(Path("no/such.mpq.safetensors")) == [Path("no/such.mpq.safetensors")]


def test_an_index_and_its_folder_name_each_file_once_in_order(tmp_path: Path) -> None:
    path = index(tmp_path, {"b": "2.st", "a": "1.st", "c": "2.st"})
    assert artifact_files(path) == artifact_files(tmp_path) == [tmp_path / "1.st", tmp_path / "2.st"]
    assert is_index(path)
    assert is_index(tmp_path)


def test_other_folders_and_files_are_no_index(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    assert not is_index(tmp_path)
    assert not is_index(tmp_path / "model.safetensors.index.json")
    assert not is_index(tmp_path / "no-such-folder")


def test_the_headers_of_several_files_make_up_one(tmp_path: Path) -> None:
    sizes = [part(tmp_path / "1", linear("a", 4, 32)), part(tmp_path / "2", linear("b", 2, 8), linear("c", 2, 8)), part(tmp_path / "3")]
    path = index(tmp_path, {"a.codes": "1", "b.codes": "2", "norm": "3"})
    found = read_header(path)
    assert [layer.name for layer in found.layers] == ["a", "b", "c"]
    assert set(found.schemes) == {"a", "b", "c"}
    assert (found.model, found.quantizer, found.config) == (FACTS.model, "rtn", {"hidden": 4})
    assert artifact_bytes(path) == sum(sizes)


def test_a_layer_in_two_files_is_refused(tmp_path: Path) -> None:
    part(tmp_path / "1", linear("a", 4, 32))
    part(tmp_path / "2", linear("a", 4, 32))
    path = index(tmp_path, {"a.codes": "1", "a.scales": "2"})
    assert refused(path) == f"{path} holds a layer in two of its files: run `mpq apply` again"


def test_files_without_any_layer_are_refused(tmp_path: Path) -> None:
    part(tmp_path / "1")
    path = index(tmp_path, {"norm": "1"})
    assert refused(path) == f"{path} holds no quantized layer: run `mpq apply` again"


def test_a_folder_with_several_indexes_or_none_is_refused(tmp_path: Path) -> None:
    assert "holds 0 indexes of artifacts (*.mpq.safetensors.index.json): name the one to load" in refused(tmp_path)
    index(tmp_path, {"a": "1"}).with_name("n.mpq.safetensors.index.json").write_text("{}")
    assert "holds 2 indexes" in refused(tmp_path)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc/passwd", "a\\b", "a\0b"])
def test_an_index_names_files_of_its_own_folder_only(tmp_path: Path, name: str) -> None:
    path = index(tmp_path, {"a": name})
    assert refused(path).endswith(" is not the name of a file in the same folder; run `mpq apply` again")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            '{"metadata": {"mpq_index": 2}, "weight_map": {"a": "1"}}',
            "is the index of an artifact of version 2, this mpq reads up to 1: upgrade mpq",
        ),
        ('{"metadata": {}, "weight_map": {"a": "1"}}', "is not the index of an artifact"),
        ("[]", "is not the index of an artifact"),
        ("{", "is not JSON that mpq reads"),
        ('{"metadata": {"mpq_index": 1}, "weight_map": []}', "weight_map is []: give a mapping"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / INDEX).write_text(text)
    assert reason in refused(tmp_path / INDEX)


def test_an_index_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / INDEX).startswith(f"cannot read {tmp_path / INDEX}: No such file")


def exported(folder: Path) -> Path:
    """A folder as `mpq export --to huggingface` writes it."""
    part(folder / "model.mpq.safetensors", linear("a", 4, 32))
    (folder / "config.json").write_text("{}")
    return folder


def test_an_exported_folder_is_its_artifact(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    assert is_index(folder)
    assert artifact_files(folder) == [folder / "model.mpq.safetensors"]
    assert read_header(folder) == read_header(folder / "model.mpq.safetensors")


@pytest.mark.parametrize("change", ["no configuration", "an original model"])
def test_another_folder_with_an_artifact_in_it_is_not(tmp_path: Path, change: str) -> None:
    folder = exported(tmp_path)
    if change == "no configuration":
        (folder / "config.json").unlink()
    else:
        (folder / "model.safetensors").write_bytes(b"")
    assert not is_index(folder)
    assert "holds 0 indexes of artifacts" in refused(folder)


@pytest.mark.parametrize(("name", "plain"), [("a.safetensors", True), ("..", False), ("", False), ("a/b", False), ("a\\b", False)])
def test_a_plain_name_stays_in_its_folder(name: str, plain: bool) -> None:
    assert is_plain_name(name) == plain
