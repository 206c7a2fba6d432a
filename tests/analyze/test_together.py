"""An analysis by several ranks, here threads: the same figures, to the bit, as by one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from torch.utils import checkpoint

import mpq
from mpq.analyze.together import begun
from mpq.errors import MismatchError
from mpq.models.running.ranks import FolderBoard, Several
from mpq.models.sources.load import from_module
from mpq.records.sensitivity import Sensitivity
from tests.models.small import data, mlp

CHOICES: dict[str, Any] = {"candidates": ("2", "4", "8"), "quantizer": "descent"}


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Ranks are processes of their own; threads may put back what holds for the whole process in the wrong order."""
    held = checkpoint.CheckpointFunction, checkpoint._checkpoint_without_reentrant_generator
    yield
    torch.backends.mha.set_fastpath_enabled(True)
    checkpoint.CheckpointFunction, checkpoint._checkpoint_without_reentrant_generator = held  # type: ignore[misc]


def analyzed(folder: Path, size: int, method: str, *, resume: bool = False) -> tuple[list[Sensitivity], list[bytes]]:
    """The table of each rank, and the lines of the file but for the last."""
    path, board, failed = folder / f"{method}.jsonl", folder / f"board{size}", Event()
    board.mkdir()
    modules = [mlp() for _ in range(size)]  # here, for threads would share the random numbers

    def one(rank: int) -> Sensitivity:
        own: dict[str, Any] = {"output": path, **CHOICES, "method": method} if rank == 0 else {}
        ranks = Several(FolderBoard(board), rank, size, lives=lambda _: not failed.is_set())
        try:
            return mpq.analyze(modules[rank], data(64), cache=folder / f"cache{size}{resume}", ranks=ranks, **own)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(size) as pool:
        tables = list(pool.map(one, range(size)))
    return tables, path.read_bytes().splitlines()[:-1]


@pytest.mark.parametrize("method", ["measure", "fisher", "weight"])
def test_any_number_of_ranks_writes_the_same_lines(method: str, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    alone = mpq.analyze(mlp(), data(64), output=tmp_path / "1" / "t.jsonl", method=method, **CHOICES)
    expected = (tmp_path / "1" / "t.jsonl").read_bytes().splitlines()[:-1]
    for size in (2, 4):
        (tmp_path / str(size)).mkdir()
        tables, lines = analyzed(tmp_path / str(size), size, method)
        assert lines == expected
        assert tables[0].finish is not None
        assert alone.finish is not None
        assert (tables[0].finish["check"], tables[0].finish["cost"]["ranks"]) == (alone.finish["check"], size)
        for table in tables:
            assert {key: errors.tolist() for key, errors in table.errors.items()} == {k: e.tolist() for k, e in alone.errors.items()}


@pytest.mark.parametrize("method", ["measure", "fisher"])
def test_a_stopped_analysis_resumes_with_another_number_of_ranks(method: str, tmp_path: Path) -> None:
    expected = tmp_path / "expected.jsonl"
    mpq.analyze(mlp(), data(64), output=expected, method=method, **CHOICES)
    lines = expected.read_bytes().splitlines(keepends=True)
    (tmp_path / f"{method}.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    _, found = analyzed(tmp_path, 2, method, resume=True)
    assert found == expected.read_bytes().splitlines()[:-1]


def test_a_finished_analysis_is_finished_in_all_ranks(tmp_path: Path) -> None:
    analyzed(tmp_path, 1, "weight")
    tables, _ = analyzed(tmp_path, 2, "weight", resume=True)
    assert all(table.finished for table in tables)


def test_a_rank_with_another_model_is_refused(tmp_path: Path) -> None:
    first = mpq.analyze(mlp(), data(64), output=tmp_path / "t.jsonl", **CHOICES)
    FolderBoard(tmp_path).put("1", (tmp_path / "t.jsonl").read_bytes())
    ranks = Several(FolderBoard(tmp_path), 1, 2)
    with pytest.raises(MismatchError) as error:
        begun(ranks, from_module(mlp(1)), data(64), None, lambda: pytest.fail("the first rank settles it"))
    assert str(error.value).startswith("this process has another model than the first one (sha256 ")
    assert str(error.value).endswith(f"there {first.header.model['sha256'][:12]}…)")
