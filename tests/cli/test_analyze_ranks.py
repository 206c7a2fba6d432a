import os
import sys
from pathlib import Path

import pytest

from mpq.cli.analyze_ranks import followed
from tests.cli import warm
from tests.cli.typed import done, environment, refused

ANALYZE = "analyze model.pt2 --calib calibration.pt --num-samples 32 --candidates 4,8 --quantizer rtn --method fisher"


def figures(path: str) -> list[bytes]:
    return Path(path).read_bytes().splitlines()[1:-1]


def test_two_processes_write_the_figures_of_one(fresh: Path) -> None:
    done(f"{ANALYZE} --workers 1 -o 1.jsonl")
    done(f"{ANALYZE} --workers 2 --cache off -o 2.jsonl")
    assert figures("1.jsonl") == figures("2.jsonl")
    last = Path("2.jsonl").read_bytes().splitlines()[-1]
    assert b'"ranks":2' in last.replace(b" ", b"")


def test_torchrun_starts_them_too(fresh: Path) -> None:
    done(f"{ANALYZE} --workers 1 -o 1.jsonl")
    command = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mpq"]
    ran = warm.run([*command, *ANALYZE.split(), "-o", "2.jsonl"], env=environment())  # it starts two cold ones
    assert ran.returncode == 0, ran.stderr
    assert figures("1.jsonl") == figures("2.jsonl")
    assert ran.stdout.count("most sensitive") == 1


@pytest.mark.parametrize("workers", ["0", "-1", "two"])
def test_what_is_not_a_number_of_processes_is_refused(workers: str, fresh: Path) -> None:
    assert refused(f"{ANALYZE} --workers {workers}", 2) == f"--workers {workers} is not a number of processes: write 1, 2, ... or auto"


def test_the_first_process_of_torchrun_and_a_plain_one_write_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert not followed()
    monkeypatch.setattr(os, "environ", {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"})
    assert not followed()
    monkeypatch.setattr(os, "environ", {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"})
    assert followed()
