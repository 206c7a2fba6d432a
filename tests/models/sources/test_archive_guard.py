"""A torch.export archive reaches torch without anything that could run code of its own."""

import io
import json
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mpq.errors import ModelError
from mpq.models.sources.archive_guard import checked_archive
from mpq.models.sources.exported_program import rebuild_program
from mpq.models.sources.load import load_model
from tests import hostile
from tests.hostile.refusing import refusal
from tests.models.sources.test_exported_program import archive

__all__ = ["archive"]


def tampered(archive: Path, path: Path, change: Callable[[str, bytes], bytes]) -> Path:
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, change(name, source.read(name)))
    return path


def _first(program: dict[str, Any], key: str, value: Any) -> bool:
    """Set the first `key` found in nested JSON."""
    for inner_key, inner in program.items():
        if inner_key == key:
            program[key] = value
            return True
        for part in inner if isinstance(inner, list) else [inner]:
            if isinstance(part, dict) and _first(part, key, value):
                return True
    return False


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("expr_str", "exec(chr(49))"),
        ("expr_str", "Symbol('s0').__class__"),
        ("target", "torch.os.system"),
        ("target", "torch.ops.load_library"),
        ("target", "_operator.call"),
        ("name", "x=print(1)"),
        ("parameter_name", 'a"),print(1),("'),
        ("in_spec", '[1, {"__enum__": true}]'),
        ("out_spec", "print(1)"),
    ],
)
def test_an_archive_with_code_in_its_graph_is_refused_before_torch_reads_it(archive: Path, tmp_path: Path, key: str, value: str) -> None:
    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return content
        program = json.loads(content)
        assert _first(program, key, value)
        return json.dumps(program).encode()

    path = tampered(archive, tmp_path / "bad", change)
    with pytest.raises(ModelError) as caught:
        load_model(path)
    expected = f"{path} holds the unusual {key} {value!r}, which may run code when loaded: if you trust the file, add --trust"
    assert str(caught.value) == expected


def test_an_archive_with_pickled_weights_is_refused(archive: Path, tmp_path: Path) -> None:
    path = tampered(archive, tmp_path / "bad", lambda name, content: content.replace(b'"use_pickle": false', b'"use_pickle": true'))
    with pytest.raises(ModelError, match=r"bad holds the pickled object '\w+(\.\w+)?', which may run code when loaded"):
        load_model(path)


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import pathlib; pathlib.Path('ran').touch()",))


def test_example_inputs_that_are_objects_are_refused_and_not_run(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    torch.save((Runs(),), buffer)
    path = tampered(archive, tmp_path / "bad", lambda name, content: buffer.getvalue() if "sample_inputs" in name else content)
    with pytest.raises(ModelError) as caught:
        load_model(path)
    expected = f"{path} holds example inputs that are Python objects, which may run code when loaded: if you trust the file, add --trust"
    assert str(caught.value) == expected
    assert not Path("ran").exists()


def test_with_trust_an_artifact_still_holds_a_program_that_runs_no_code(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logging.raiseExceptions", False)  # a warning of torch has the wrong number of arguments
    wanted = load_model(archive)
    assert wanted.program is not None
    assert load_model(archive, trust=True).program == wanted.program
    buffer = io.BytesIO()
    torch.save((Fraction(1, 2),), buffer)
    unsafe = tampered(archive, tmp_path / "bad", lambda name, content: buffer.getvalue() if "sample_inputs" in name else content)
    assert load_model(unsafe, trust=True).program is None


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


def checked(records: dict[str, bytes]) -> zipfile.ZipFile:
    return zipfile.ZipFile(checked_archive(io.BytesIO(hostile.zipped(records)), "a file").file)


def test_torch_is_given_the_graph_the_weights_and_no_pickle() -> None:
    records = hostile.export_records() | {"archive/extra/notes.txt": b"made on a Monday"}
    found = checked(records)
    assert set(found.namelist()) == {
        "archive/archive_format",
        "archive/archive_version",
        "archive/byteorder",
        "archive/version",
        "archive/models/model.json",
        "archive/data/weights/model_weights_config.json",
        "archive/data/constants/model_constants_config.json",
        "archive/data/sample_inputs/model.pt",
        *(name for name in records if "/weights/weight_" in name or "/constants/tensor_" in name),
    }
    assert found.testzip() is None
    assert found.read("archive/data/sample_inputs/model.pt") == b""
    weight = next(name for name in records if "/weights/weight_" in name)
    assert found.read(weight) == records[weight]


def test_guards_which_are_python_are_dropped_and_the_graph_is_kept() -> None:
    records = hostile.export_records()
    name = "archive/models/model.json"
    program = json.loads(records[name])
    found = json.loads(checked(records | {name: json.dumps({**program, "guards_code": ["True"]}).encode()}).read(name))
    assert found == {key: value for key, value in program.items() if key != "guards_code"}


def test_example_inputs_are_read_by_mpq_itself() -> None:
    found = checked_archive(io.BytesIO(hostile.zipped(hostile.export_records())), "a file").example_inputs
    assert found is not None
    args, kwargs = found
    assert [tuple(each.shape) for each in args] == [(2, 4)]
    assert kwargs == {}
    without = {name: content for name, content in hostile.export_records().items() if "sample_inputs" not in name}
    assert checked_archive(io.BytesIO(hostile.zipped(without)), "a file").example_inputs is None


@pytest.mark.parametrize(
    ("record", "content", "what"),
    [
        ("archive_format", b"pt3", "a different archive_format than torch writes"),
        ("archive_version", b"1", "a different archive_version than torch writes"),
        ("byteorder", b"big", "numbers in another byte order"),
        ("data/aotinductor/model/x.so", b"", "a compiled library"),
        ("data/weights/model.pt", b"", "pickled tensors"),
        ("notes.txt", b"", "the unusual record 'notes.txt'"),
    ],
)
def test_a_record_that_torch_does_not_write_is_named(record: str, content: bytes, what: str) -> None:
    with pytest.raises(ModelError) as caught:
        checked(hostile.export_records() | {f"archive/{record}": content})
    assert str(caught.value) == f"a file holds {what}, which may run code when loaded: if you trust the file, add --trust"
