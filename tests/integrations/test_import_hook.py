import importlib
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

import mpq
from mpq.integrations import import_hook
from tests.standing import FORKING, Standing

ROOT = Path(mpq.__file__).parent.parent
HOME = "import sys\nseen = [sys.modules['anyprogram.auto'].VALUE]\n"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A program of two modules, and mpq's module for it."""
    (tmp_path / "anyprogram").mkdir()
    (tmp_path / "anyprogram" / "__init__.py").write_text("")
    (tmp_path / "anyprogram" / "auto.py").write_text("VALUE = 3\n")
    (tmp_path / "anyhome.py").write_text(HOME)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(import_hook, "REGISTRATIONS", {"anyprogram.auto": "anyhome"})
    finders = list(sys.meta_path)
    yield "anyprogram.auto"
    sys.meta_path[:] = finders
    for name in ("anyprogram", "anyprogram.auto", "anyhome"):
        sys.modules.pop(name, None)


def seen() -> list[int]:
    """What mpq's module found when it was imported, which it must have been."""
    found: list[int] = sys.modules["anyhome"].seen
    return found


def test_a_program_that_is_imported_later_is_registered_with_once_it_is_complete(program: str) -> None:
    before = list(sys.meta_path)
    import_hook.install()
    assert "anyprogram" not in sys.modules
    assert "anyhome" not in sys.modules
    importlib.import_module(program)
    assert seen() == [3]
    assert sys.meta_path == before


def test_a_program_that_is_there_is_registered_with_at_once(program: str) -> None:
    importlib.import_module(program)
    before = list(sys.meta_path)
    import_hook.install()
    assert seen() == [3]
    assert sys.meta_path == before


def test_the_module_keeps_its_own_loader(program: str) -> None:
    import_hook.install()
    module = importlib.import_module(program)
    assert type(module.__loader__) is SourceFileLoader
    assert module.__spec__ is not None
    assert module.__spec__.loader is module.__loader__
    assert importlib.reload(module) is module
    assert seen() == [3]


@pytest.mark.parametrize("line", ["import nothing_of_this_name", "raise AttributeError('gone')"])
def test_a_failure_is_a_warning_and_the_program_is_imported(program: str, tmp_path: Path, line: str) -> None:
    (tmp_path / "anyhome.py").write_text(f"{line}\n")
    import_hook.install()
    with pytest.warns(RuntimeWarning, match="mpq is not registered with this version of anyprogram: "):
        module = importlib.import_module(program)
    assert module.VALUE == 3


def test_a_program_that_is_not_installed_stays_so(program: str, tmp_path: Path) -> None:
    (tmp_path / "anyprogram" / "auto.py").unlink()
    import_hook.install()
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'anyprogram\.auto'"):
        importlib.import_module(program)


@pytest.fixture(scope="module")
def process() -> Iterator[Standing]:
    with Standing(FORKING, ROOT) as standing:
        yield standing


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize("first", ["import mpq, transformers", "import transformers, mpq", "import transformers.quantizers.auto, mpq"])
def test_transformers_knows_mpq_whichever_comes_first(process: Standing, first: str) -> None:
    pytest.importorskip("transformers")
    process.ask(
        f"{first}\nfrom transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING as known\n"
        "assert known['mpq'].__module__ == 'mpq.integrations.transformers_quantizer'"
    )


def test_mpq_alone_imports_no_program() -> None:
    code = "import sys, mpq; print(sorted({'torch', 'transformers', 'lm_eval'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
