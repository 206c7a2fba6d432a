import json
from pathlib import Path

import pytest

from mpq.errors import FormatError
from mpq.records.fingerprint import (
    Fingerprint,
    InputFacts,
    LayerFingerprint,
    OutputFacts,
    fingerprint_path,
    read_fingerprint,
    write_fingerprint,
)


def small() -> Fingerprint:
    layer = LayerFingerprint("a.b", "int4-g32", [2, 64], weights="0123456789abcdef", uses=["MatMul"], output=[0.5, 1.5])
    outputs = [OutputFacts("output", [1, 2], 3.0, [3.0, None])]
    return Fingerprint(
        1, "onnx", 1e-3, [InputFacts([1, 2], "int64", below=7)], outputs, {"b": layer}, {"norm": "f" * 16}, ["x"], {"h": "e"}
    )


def test_a_fingerprint_reads_back(tmp_path: Path) -> None:
    export = tmp_path / "model.onnx"
    path = write_fingerprint(export, small())
    assert path == tmp_path / "model.onnx.fingerprint.json"
    assert read_fingerprint(export) == small()
    assert "null" not in path.read_text().replace("[3.0,null]", "")


def test_that_of_a_folder_is_inside(tmp_path: Path) -> None:
    assert fingerprint_path(tmp_path) == tmp_path / "mpq.fingerprint.json"


def test_without_one_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"model\.onnx\.fingerprint\.json.*`mpq export` writes it unless you pass --no-fingerprint"):
        read_fingerprint(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mpq_fingerprint": 2}, "of version 2, this mpq reads up to 1: upgrade mpq"),
        ({"layers": 3}, "layers"),
        ({"inputs": [{"shape": [1 << 40], "dtype": "float32"}]}, "more than 268,435,456 values"),
        ({"inputs": [{"shape": [1], "dtype": "os.system"}]}, "dtype"),
        ({"tensors": {"norm": "xyz"}}, "norm"),
    ],
)
def test_a_damaged_one_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    export = tmp_path / "model.onnx"
    path = write_fingerprint(export, small())
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(FormatError, match=message):
        read_fingerprint(export)
