import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mpq.data.array_files import READABLE, read_arrays
from mpq.errors import DataError
from tests.data.test_inert_pickle import Calls
from tests.hostile import zipped

A, B = torch.arange(6.0).view(2, 3), torch.tensor([[1, 2]])


def read(path: Path) -> Any:
    return read_arrays(path, "data")


def same(found: Any, expected: Any) -> bool:
    """Whether nested containers of tensors are alike, to the bit and the type of each container."""
    if isinstance(expected, torch.Tensor):
        return isinstance(found, torch.Tensor) and found.dtype == expected.dtype and torch.equal(found, expected)
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], value) for key, value in expected.items())
    if isinstance(expected, (list, tuple)):
        return type(found) is type(expected) and len(found) == len(expected) and all(map(same, found, expected))
    return bool(found == expected)


WRITERS: dict[str, tuple[Callable[[Path], Any], Any]] = {
    "torch": (lambda path: torch.save({"a": [A, (B,)]}, path), {"a": [A, (B,)]}),
    "torch, old format": (lambda path: torch.save((A, B), path, _use_new_zipfile_serialization=False), (A, B)),
    "npy": (lambda path: np.lib.format.write_array(path.open("wb"), A.numpy()), A),
    "npz by position": (lambda path: np.savez(path.open("wb"), A.numpy(), B.numpy()), (A, B)),
    "npz by name": (lambda path: np.savez(path.open("wb"), x=A.numpy(), y=B.numpy()), {"x": A, "y": B}),
    "npz, compressed": (lambda path: np.savez_compressed(path.open("wb"), x=A.numpy()), {"x": A}),
    "safetensors": (lambda path: save_file({"x": A, "y": B}, path), {"x": A, "y": B}),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", WRITERS)
def test_each_format_is_known_by_its_contents_and_read_back(tmp_path: Path, kind: str) -> None:
    write, expected = WRITERS[kind]
    write(tmp_path / "no.ending")
    assert same(read(tmp_path / "no.ending"), expected)


def test_more_than_ten_arrays_by_position_keep_their_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", *[np.array([number]) for number in range(12)])
    assert [int(one) for one in read(tmp_path / "x.npz")] == list(range(12))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (">f4", torch.float32),
        (">i8", torch.int64),
        ("<u2", torch.int64),
        ("<u4", torch.int64),
        ("u1", torch.uint8),
        ("?", torch.bool),
        ("c8", torch.complex64),
        ("<f2", torch.float16),
    ],
)
def test_numbers_of_every_kind_become_tensors_that_torch_can_use(tmp_path: Path, dtype: str, expected: torch.dtype) -> None:
    np.save(tmp_path / "x.npy", np.array([0, 1, 1], dtype=dtype))
    found = read(tmp_path / "x.npy")
    assert (found.dtype, found.tolist()) == (expected, [0, 1, 1])


@pytest.mark.parametrize("content", [b"a line of text\nand another\n", b'{"text": "a"}\n', b"PL", b"\x80", bytes(20)])
def test_what_is_no_file_of_tensors_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert read(tmp_path / "x") is None


def test_what_is_not_there_or_empty_is_refused_with_what_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^data does not exist: ") as error:
        read(tmp_path / "none.pt")
    assert READABLE in str(error.value)
    (tmp_path / "empty").touch()
    with pytest.raises(DataError, match=r"^data is empty: "):
        read(tmp_path / "empty")


def test_text_in_an_array_is_refused_by_the_name_of_the_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(2), b=np.array(["x", "yz"]))
    with pytest.raises(DataError, match=r"^data, array 'b' holds <U2, which is not numeric: save numeric arrays$"):
        read(tmp_path / "x.npz")
    np.save(tmp_path / "x.npy", np.array(["x"]))
    with pytest.raises(DataError, match=r"^data holds <U1, which is not numeric: save numeric arrays$"):
        read(tmp_path / "x.npy")


@pytest.mark.parametrize("new", [True, False])
def test_pickled_objects_are_refused_and_nothing_is_run(tmp_path: Path, new: bool) -> None:
    torch.save([A, Calls(os.mkdir, str(tmp_path / "made"))], tmp_path / "x.pt", _use_new_zipfile_serialization=new)
    with pytest.raises(DataError) as error:
        read(tmp_path / "x.pt")
    name = f"{os.mkdir.__module__}.mkdir"
    assert str(error.value) == f"data holds pickled Python objects ({name}), which run code when loaded: save plain tensors with torch.save"
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("kind", ["torch", "npy", "safetensors", "npz by name"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_file_that_is_cut_off_is_refused_in_one_sentence(tmp_path: Path, kind: str) -> None:
    WRITERS[kind][0](tmp_path / "x")
    content = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(content[:-10])
    with pytest.raises(DataError, match=r"^data (cannot be read \(.*\)|is a truncated or damaged archive): save the data again$"):
        read(tmp_path / "x")


@pytest.mark.parametrize("names", [["top/data.pkl", "top/constants.pkl"], ["a.txt"], ["a.npy", "b.txt"]])
def test_archives_of_something_else_are_refused(tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "x").write_bytes(zipped(dict.fromkeys(names, b"x")))
    with pytest.raises(DataError) as error:
        read(tmp_path / "x")
    assert str(error.value) == f"data is an archive without data, perhaps a model: give a file of {READABLE}"


def test_json_in_a_header_that_is_wrong_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [100], "data_offsets": [0, 400]}}).encode()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(DataError, match=r"^data cannot be read \("):
        read(tmp_path / "x")


def test_text_in_utf16_is_no_file_of_tensors(tmp_path: Path) -> None:
    for text in ("[\n {}]", '{"a": {}}', "abc{"):
        for encoding in ("utf-16-le", "utf-16-be"):
            (tmp_path / "t").write_bytes(("\ufeff" + text).encode(encoding))
            assert read(tmp_path / "t") is None
