import os
import signal

import pytest
import torch
from torch._C._distributed_c10d import HashStore

from mpq.models.running import rank_processes
from mpq.models.running.rank_processes import joined, started, under_torchrun
from mpq.models.running.ranks import Ranks, Several
from tests.cli import warm


def squares(ranks: Ranks, *, deadly: bool = False) -> list[int]:
    def work(unit: int) -> int:
        if deadly and not ranks.leads:
            os.kill(os.getpid(), signal.SIGKILL)
        return unit * unit

    return list(ranks.each(4, work))


def follow(given: bool, ranks: Ranks) -> None:
    squares(ranks, deadly=given)


@pytest.mark.parametrize("deadly", [False, True])
def test_other_processes_do_some_units_and_one_that_is_killed_loses_only_its_own(deadly: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if deadly:
        monkeypatch.setattr(rank_processes, "get_context", warm.context)  # one start from cold does
    with started(2, follow, deadly) as (ranks, folder):
        assert (ranks.rank, ranks.size) == (0, 2)
        assert squares(ranks) == [0, 1, 4, 9]
    assert not folder.exists()


def test_ranks_of_torchrun_are_found_by_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert not under_torchrun()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not under_torchrun()
    for name, value in (("RANK", "1"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "29512")):
        monkeypatch.setenv(name, value)
    assert under_torchrun()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not under_torchrun()


def test_a_process_of_torchrun_joins_by_its_store(monkeypatch: pytest.MonkeyPatch) -> None:
    store = HashStore()
    monkeypatch.setattr(rank_processes, "rendezvous", lambda url: iter([(store, 0, 1)]) if url == "env://" else None)
    found = joined()
    assert isinstance(found, Several)
    assert (found.rank, found.size, squares(found)) == (0, 1, [0, 1, 4, 9])


@pytest.mark.parametrize(("text", "count"), [("3", 3), ("", 1), (None, 1)])
def test_threads_are_those_of_the_environment_or_one(text: str | None, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    if text is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", text)
    try:
        rank_processes.use_threads()
        assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
