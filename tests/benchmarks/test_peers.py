import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.peers import base
from benchmarks.peers.__main__ import PEERS
from benchmarks.peers.base import Peer, PeerError, run


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
