import json
import sys
from datetime import date
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.peers import base
from benchmarks.peers.__main__ import PEERS
from benchmarks.peers.allocation import Allocation
from benchmarks.peers.base import Peer, PeerError, run
from benchmarks.peers.page import Row, draw, page


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose environment for `worker.py` is this one."""
    monkeypatch.setattr(base, "WORKERS", tmp_path)
    monkeypatch.setattr(base, "_environment", lambda *_: sys.executable)
    return tmp_path


def test_a_peer_is_run_once_and_read_again(work: Path) -> None:
    source = "import sys, pathlib; out = pathlib.Path(sys.argv[3]); (out / 'facts.json').write_text(sys.argv[4]); (out / 'seen').touch()"
    (work / "worker.py").write_text(source)
    facts = {"bits": {"a": 4.0}, "bytes": 12, "seconds": 1.5, "peak_bytes": 7, "version": "1"}
    (work / "one").mkdir()
    save_file({"a.weight": torch.ones(2)}, work / "one" / "weights.safetensors")
    peer = Peer("one", "worker.py", (), (json.dumps(facts),))
    found = run(peer, Path("model"), Path("windows.pt"), work)
    assert (found.bits, found.bytes, found.seconds, found.version) == ({"a": 4.0}, 12, 1.5, "1")
    assert found.weights["a.weight"].tolist() == [1, 1]
    (work / "one" / "seen").unlink()
    assert run(peer, Path("model"), Path("windows.pt"), work).bytes == 12
    assert not (work / "one" / "seen").exists()


def test_a_peer_that_fails_gives_its_last_line(work: Path) -> None:
    (work / "worker.py").write_text("print('first'); raise SystemExit('needs a GPU')")
    with pytest.raises(PeerError, match=r"^needs a GPU$"):
        run(Peer("one", "worker.py", ()), Path("model"), Path("windows.pt"), work)


def test_every_peer_has_its_program() -> None:
    assert len({peer.name for peer in PEERS}) == len(PEERS)
    for peer in PEERS:
        assert (base.WORKERS / peer.worker).is_file()


def test_the_page_says_who_is_ahead_and_what_is_noise() -> None:
    rows = [
        Row("zero (1.0)", 1000, 4.5, 0.16, 0.002, 10.0),
        Row("one (1.0)", 1000, 4.5, 0.06, 0.002, 100.0, peak_bytes=3 << 20),
        Row("  mpq 4,8,16", 990, 4.45, 0.03, 0.001, 150.0),
        Row("  mpq 8,16,fine", 1000, 4.5, 0.061, 0.001, 50.0),
    ]
    allocations = [Allocation("two", 5.0, 0.2, 0.1, 0.02), Allocation("three", 5.0, 0.1, 0.2, 0.02)]
    text = page(rows, allocations, date(2026, 1, 31))
    assert "| one (1.0) | 1,000 | 4.500 | 0.0600 ±0.0020 | 100 | 3 MiB |\n| mpq 4,8,16 | 990 | 4.450 | 0.0300 ±0.0010 | 150 | - |\n" in text
    assert "- mpq 4,8,16, 4.450 bits: 0.50 of the error of one (1.0), in 1.5 times its CPU time.\n" in text
    assert "- mpq 8,16,fine, 4.500 bits: 1.02 of the error of one (1.0), which is within noise, in 0.5 times its CPU time.\n" in text
    assert "| three | 5.000 | 0.1000 | 0.2000 | 0.50 | -5.0 |\n| two | 5.000 | 0.2000 | 0.1000 | 2.00 | +5.0 |\n" in text
    assert "geometric mean of the 2 ratios is 1.00; mpq's plan is worse by more than two standard errors in 1 of them." in text
    assert "Measured on 2026-01-31." in text
    assert "Did not run here" not in text
    blocks = page(rows, [], date(2026, 1, 31), [("four", "needs a GPU")])
    assert "Did not run here:\n\n- four: needs a GPU\n" in blocks
    assert "Allocation" not in blocks
    assert "whole file\n" not in blocks


def test_whole_files_have_a_table_of_their_own() -> None:
    blocks = [Row("one (1.0)", 1000, 4.5, 0.06, 0.002, 100.0), Row("  mpq 4,8,16", 990, 4.45, 0.03, 0.001, 150.0)]
    files = [Row("two (2.0)", 3000, 6.0, 0.02, 0.001, 2.0, whole=True), Row("  mpq coded", 2990, 5.98, 0.005, 0.001, 90.0, whole=True)]
    first, second = page([*blocks, *files], [], date(2026, 1, 31)).split("## Whole product: the whole file")
    assert "mpq 4,8,16" in first
    assert "mpq coded" not in first
    assert "| two (2.0) | 3,000 | 6.000 | 0.0200 ±0.0010 | 2 | - |\n| mpq coded | 2,990 | 5.980 | 0.0050 ±0.0010 | 90 | - |\n" in second
    assert "- mpq coded, 5.980 bits: 0.25 of the error of two (2.0), in 45.0 times its CPU time.\n" in second


def test_packages_without_their_own_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(base, "_checked", lambda command, _: asked.append(command[4:] if "pip" in command else command[1:2]))
    monkeypatch.setattr("venv.create", lambda folder, **_: folder.mkdir(parents=True))
    with pytest.raises(FileNotFoundError):  # the program was not really run
        run(Peer("one", "worker.py", ("torch",), alone=("nncodec",)), Path("model"), Path("windows.pt"), tmp_path)
    assert asked == [["--quiet", "torch"], ["--quiet", "--no-deps", "nncodec"], [str(base.WORKERS / "worker.py")]]


def test_errors_are_drawn_by_size(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw([Row("one (1.0)", 1000, 4.5, 0.06, 0.002, 100.0), Row("  mpq 4,8,16", 990, 4.45, 0.03, 0.001, 150.0)], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_peak_begins_anew() -> None:
    held = bytearray(64 << 20)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
    before = base.peak_bytes()
    del held
    base.reset_peak()
    assert base.peak_bytes() <= before
