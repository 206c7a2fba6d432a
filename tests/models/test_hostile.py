"""Malicious model files: refused with one line, before anything of theirs runs; ordinary ones of the same make load."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mpq.data.array_files import read_arrays
from mpq.errors import DataError, MpqError
from mpq.models.sources.exported_program import rebuild_program, strip_program
from mpq.models.sources.load import load_model
from tests import hostile
from tests.hostile.refusing import refusal

ADVICE = ("weights_only", "add_safe_globals", "damaged")
SECONDS = 5.0


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
def test_a_program_that_unpacks_to_more_than_the_limit_is_refused(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    monkeypatch.setattr("mpq.models.sources.exported_program.PROGRAM_BYTES", 20 << 20)
    content = importlib.import_module(machine).compress(bytes(64 << 20))
    with pytest.raises(MpqError, match="the program in the artifact unpacks to more than 20,971,520 bytes"):
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
