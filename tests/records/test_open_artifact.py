from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from mpq.errors import FormatError
from mpq.records.open_artifact import opened, unpacking

FIRST, SECOND, THIRD = torch.arange(6.0).view(2, 3), torch.tensor([1, 2], dtype=torch.uint8), torch.tensor(7, dtype=torch.int64)


def files(folder: Path) -> list[Path]:
    save_file({"b": FIRST, "a": SECOND}, folder / "1")
    save_file({"c": THIRD}, folder / "2")
    return [folder / "1", folder / "2"]


def test_several_files_are_read_as_one(tmp_path: Path) -> None:
    with opened(files(tmp_path)) as found:
        assert sorted(found.keys()) == ["a", "b", "c"]
        assert torch.equal(found.get_tensor("b"), FIRST)
        assert torch.equal(found.get_tensor("c"), THIRD)
        part = found.get_slice("b")
        assert (part.get_shape(), part.get_dtype()) == ([2, 3], "F32")
        assert torch.equal(part[1:], FIRST[1:])


def test_no_files_have_no_tensors() -> None:
    with opened([]) as found:
        assert found.keys() == []


def test_a_tensor_that_no_file_has_is_a_key_error(tmp_path: Path) -> None:
    with opened(files(tmp_path)) as found, pytest.raises(KeyError, match="'d'"):
        found.get_tensor("d")


def test_one_file_that_cannot_be_opened_opens_none(tmp_path: Path) -> None:
    (tmp_path / "3").write_bytes(b"\0" * 20)
    with pytest.raises(SafetensorError), opened([*files(tmp_path), tmp_path / "3"]):
        raise AssertionError("opened")


def test_damaged_codes_are_told_with_their_file_and_layer() -> None:
    with pytest.raises(FormatError) as error, unpacking(Path("m.mpq.safetensors"), "a.b"):
        raise FormatError("its codes are damaged: they end too early")
    reason = "its codes are damaged: they end too early"
    assert str(error.value) == f"m.mpq.safetensors is damaged (layer 'a.b': {reason}): run `mpq apply` again"
