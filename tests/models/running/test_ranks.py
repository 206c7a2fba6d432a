"""Processes that share work through claims and values; here they are threads."""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from torch._C._distributed_c10d import HashStore

from mpq.models.running.ranks import Alone, Board, FolderBoard, LostError, Ranks, Several, StoreBoard, float_bytes


@pytest.fixture(params=["folder", "store"])
def board(request: pytest.FixtureRequest, tmp_path: Path) -> Board:
    return FolderBoard(tmp_path) if request.param == "folder" else StoreBoard(HashStore())


def together(board: Board, size: int, work: Callable[[Ranks], Any]) -> list[Any]:
    failed = Event()

    def one(rank: int) -> Any:
        try:
            return work(Several(board, rank, size, lives=lambda _: not failed.is_set()))
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))


def test_the_first_claim_counts_and_a_value_is_there_or_not(board: Board) -> None:
    assert [board.claim("a", 1), board.claim("a", 0), board.claim("a", 1), board.claim("b", 0)] == [True, False, False, True]
    assert board.get("a") is None
    board.put("a", b"x" * 100_000)
    assert board.get("a") == b"x" * 100_000


def test_a_folder_tells_who_claimed(tmp_path: Path) -> None:
    board = FolderBoard(tmp_path)
    board.claim("a", 3)
    assert (board.claimer("a"), board.claimer("b")) == (3, None)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_each_unit_is_done_once_and_all_ranks_get_all_results_in_order(board: Board, size: int) -> None:
    done: list[int] = []

    def work(unit: int) -> list[int]:
        time.sleep(0.002 * (7 - unit % 7))
        done.append(unit)
        return [unit, unit * unit]

    found = together(board, size, lambda ranks: [list(ranks.each(9, work)), list(ranks.each(2, work))])
    assert found == [[[[unit, unit * unit] for unit in range(9)], [[0, 0], [1, 1]]]] * size
    assert sorted(done) == sorted([*range(9), 0, 1])


def test_what_the_first_rank_makes_all_ranks_get(board: Board) -> None:
    made: list[int] = []

    def work(ranks: Ranks) -> bytes:
        return ranks.from_first(lambda: made.append(ranks.rank) or b"made")  # type: ignore[func-returns-value]

    assert together(board, 3, work) == [b"made"] * 3
    assert made == [0]


def test_the_first_rank_gets_the_sums(board: Board) -> None:
    found = [Several(board, rank, 4).sums({"a": 1.0 + rank} | ({"b": 0.5} if rank else {})) for rank in (2, 1, 0)]
    assert found == [{"a": 3.0, "b": 0.5}, {"a": 2.0, "b": 0.5}, {"a": 6.0, "b": 1.0}]


def test_the_first_rank_waits_for_those_that_have_begun(board: Board) -> None:
    second = Several(board, 1, 3)
    assert list(second.each(1, lambda unit: unit)) == [0]
    with ThreadPoolExecutor(1) as pool:
        first = Several(board, 0, 3)
        assert list(first.each(1, lambda unit: unit)) == [0]
        waiting = pool.submit(first.sums, {"a": 1.0})
        assert second.sums({"a": 2.0}) == {"a": 2.0}
        assert waiting.result() == {"a": 3.0}


def test_the_unit_of_a_rank_that_died_is_done_by_the_first(tmp_path: Path) -> None:
    board = FolderBoard(tmp_path)
    board.claim("1-0", 1)
    board.claim("1-2", 1)
    board.put("1-2", b"2")
    first = Several(board, 0, 2, lives=lambda _: False)
    assert list(first.each(4, lambda unit: unit)) == [0, 1, 2, 3]
    assert first.sums({"a": 1.0}) == {"a": 1.0}


def test_a_rank_ends_where_the_first_one_died(tmp_path: Path) -> None:
    second = Several(FolderBoard(tmp_path), 1, 2, lives=lambda _: False)
    with pytest.raises(LostError):
        second.from_first(bytes)


def test_one_process_does_all_one_after_the_other() -> None:
    alone = Alone()
    assert (list(alone.each(3, lambda unit: -unit)), alone.from_first(lambda: b"a"), alone.sums({"a": 1.0})) == (
        [0, -1, -2],
        b"a",
        {"a": 1.0},
    )
    assert (alone.rank, alone.size, alone.leads) == (0, 1, True)


@pytest.mark.parametrize("value", [0.1, -1e-300, math.inf, -math.inf, 1 / 3])
def test_a_number_is_read_as_it_was(value: float) -> None:
    assert float(float_bytes(value)) == value
    assert math.isnan(float(float_bytes(math.nan)))
