"""Which tensors lie where in safetensors files, and some of their rows at a time."""

import json
import os
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mpq.errors import ModelError
from mpq.models.sources.checkpoint_files import StoredTensor, checkpoint_files, read_into, tensors_of

A, B = torch.arange(12.0).reshape(4, 3), torch.arange(6, dtype=torch.int16).reshape(2, 3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file({"b": B, "a": A, "scalar": torch.tensor(3.0), "none": torch.zeros(0, 5)}, tmp_path / "m.safetensors", {"format": "pt"})
    return tmp_path / "m.safetensors"


def test_a_header_says_what_lies_where(file: Path) -> None:
    found = {tensor.name: tensor for tensor in tensors_of(file)}
    assert {name: (tensor.dtype, tensor.shape, tensor.bytes) for name, tensor in found.items()} == {
        "a": ("F32", (4, 3), 48),
        "b": ("I16", (2, 3), 12),
        "scalar": ("F32", (), 4),
        "none": ("F32", (0, 5), 0),
    }
    starts = [tensor.start for tensor in tensors_of(file)]
    assert starts == sorted(starts)
    raw = file.read_bytes()
    assert raw[found["a"].start : found["a"].start + 48] == A.numpy().tobytes()


def test_rows_are_read_without_the_rest(file: Path) -> None:
    (tensor,) = [each for each in tensors_of(file) if each.name == "a"]
    (none,) = [each for each in tensors_of(file) if each.name == "none"]
    descriptor = os.open(file, os.O_RDONLY)
    try:
        assert torch.equal(tensor.rows(descriptor, 1, 2), A[1:3])
        assert torch.equal(tensor.rows(descriptor, 0, 4), A)
        assert tensor.rows(descriptor, 4, 0).shape == (0, 3)
        assert none.rows(descriptor, 0, 0).shape == (0, 5)
    finally:
        os.close(descriptor)


def test_bytes_are_read_into_a_tensor_of_any_dtype(file: Path) -> None:
    (tensor,) = [each for each in tensors_of(file) if each.name == "b"]
    into = torch.empty(2, 3, dtype=torch.int16)
    descriptor = os.open(file, os.O_RDONLY)
    try:
        read_into(descriptor, into, tensor.start)
        assert torch.equal(into, B)
        read_into(descriptor, torch.empty(0), 10**9)
        with pytest.raises(ModelError, match=r"^a file ends before its last tensor: download the model again$"):
            read_into(descriptor, torch.empty(4), file.stat().st_size - 8)
    finally:
        os.close(descriptor)


def header(text: str, size: int = 0) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(size)


ENTRY = '{"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no header"),
        (header("[]"), "no header"),
        (struct.pack("<Q", 1 << 40) + b"{}", "no header"),
        (header(f'{{"a": {ENTRY}}}', 7), "cut off"),
        (header('{"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}', 8), "cut off"),
        (header('{"a": {"dtype": "F6", "shape": [2], "data_offsets": [0, 8]}}', 8), "dtype F6 of 'a'"),
        (header('{"a": {"dtype": "F32", "shape": [2]}}', 8), "'data_offsets'"),
        (header('{"a": 3}', 8), ""),
        (header("{" * 10_000), ""),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        tensors_of(path)
    message = str(caught.value)
    assert message.startswith(f"{path} cannot be read as a .safetensors file ({reason}")
    assert message.endswith("): save or download the model again")


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be read as a \.safetensors file \(.*No such file"):
        tensors_of(tmp_path / "none")


def test_the_files_are_those_of_the_folder_the_index_or_the_file_itself(tmp_path: Path, file: Path) -> None:
    assert checkpoint_files(file) == [file]
    save_file({"c": A}, tmp_path / "a.safetensors")
    assert checkpoint_files(tmp_path) == [tmp_path / "a.safetensors", file]
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "m.safetensors"}}))
    assert checkpoint_files(tmp_path) == [file]


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    expected = f"{tmp_path} holds no safetensors files: convert its weights to safetensors first"
    with pytest.raises(ModelError) as caught:
        checkpoint_files(tmp_path)
    assert str(caught.value) == expected
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError) as caught:
        checkpoint_files(tmp_path)
    assert str(caught.value) == expected


@pytest.mark.parametrize(("dtype", "shape", "size"), [("BF16", (3, 5), 30), ("BOOL", (), 1), ("F64", (2, 0), 0)])
def test_a_size_follows_from_dtype_and_shape(dtype: str, shape: tuple[int, ...], size: int) -> None:
    assert StoredTensor("a", dtype, shape, Path("x"), 0).bytes == size
