import json
from pathlib import Path

import pytest

from mpq.errors import FormatError
from mpq.files import PREFIX
from mpq.records.file_kind import kind_of


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"mpq_plan: 1\n", "plan"),
        (b"\xef\xbb\xbfmpq_plan: 1\n", "plan"),
        ("# é\n".encode(), "plan"),
        (b'{"mpq_sensitivity": 1}\n', "sensitivity"),
        ((2).to_bytes(8, "little") + b"{}", "artifact"),
        ((2**33).to_bytes(8, "little") + b'{"__metadata__"', "artifact"),  # its length is seen by its reader
    ],
)
def test_the_first_bytes_tell(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "any"
    path.write_bytes(content)
    assert kind_of(path) == kind


@pytest.mark.parametrize("content", [b"PK\x03\x04\0\0\0\0[", b"\x89PNG\r\n", b"text\0", b"\xff\xfe", b"a" * 20 + b"\xc3"])
def test_what_is_no_text_and_no_artifact_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any"
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        kind_of(path)
    assert str(caught.value) == f"{path} is not a file that mpq wrote: name a sensitivity file, a plan or an artifact"


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_character_may_go_beyond_the_bytes_that_are_read(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "plan.yaml"
    path.write_bytes(b"a" * (PREFIX - cut) + "\N{GRINNING FACE}".encode() + b"\n")
    assert kind_of(path) == "plan"
    path.write_bytes(b"a" * (PREFIX - 5) + b"\xf0" + b"a" * 10)  # a character that never ends, within them
    with pytest.raises(FormatError, match="is not a file that mpq wrote"):
        kind_of(path)


def test_an_index_is_an_artifact_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "m.mpq.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}}))
    assert kind_of(path) == kind_of(tmp_path) == "artifact"


def test_a_missing_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name, reason in (("none", "does not exist"), ("empty", "is empty")):
        with pytest.raises(FormatError, match=reason):
            kind_of(tmp_path / name)
