import shutil
from pathlib import Path

import pytest

from mpq.demo import write_demo
from tests.cli import warm
from tests.cli.typed import done

ANALYZE = "analyze model.pt2 --calib calibration.pt --num-samples 24"
SEARCH = "search --budget 4.5bits --trials 2"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file of one way through, made once; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    write_demo("digits", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in (ANALYZE, SEARCH, "apply plan.yaml"):
            done(line)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all of it, which is the current folder."""
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def fresh(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the model and its data alone, which is the current folder."""
    (tmp_path / "fresh").mkdir()
    for name in ("model.pt2", "calibration.pt", "test.pt"):
        shutil.copy(made / name, tmp_path / "fresh")
    monkeypatch.chdir(tmp_path / "fresh")
    return tmp_path / "fresh"


@pytest.fixture
def quick_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """`mpq bench` takes ten rounds in place of two seconds, and measures loads in processes that start warm."""
    monkeypatch.setattr("mpq.cli.load_cost.subprocess", warm)
    monkeypatch.setattr("mpq.runtime.speed._MOST", 10)
