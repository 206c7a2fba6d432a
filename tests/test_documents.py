"""The documents in docs/ are run as the README is, and their links lead somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from mpq.demo import write_demo
from mpq.demo.session import STEPS
from mpq.records.plan import read_plan
from mpq.schemas import schema
from tests import documents
from tests.cli import warm
from tests.cli.typed import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def recipe(title: str, folder: Path) -> Path:
    """One section of the cookbook as a document of its own."""
    text = (DOCS / "cookbook.md").read_text()
    (section,) = [part for part in re.split(r"^## ", text, flags=re.MULTILINE) if part.startswith(f"{title}\n")]
    (folder / f"{title}.md").write_text(section)
    return folder / f"{title}.md"


def printed_by(program: str) -> str:
    """What a program prints in a process of its own, which must succeed."""
    process = warm.program(program)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


@pytest.mark.parametrize("path", documents.DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    assert documents.dead_links(path) == []


def test_every_page_and_picture_in_docs_is_linked_from_another_page() -> None:
    linked = {(path.parent / target).resolve() for path in documents.DOCUMENTS for target in documents.targets(path)}
    files = [path for path in DOCS.rglob("*") if path.suffix in (".md", ".png")]
    assert [path.relative_to(ROOT).as_posix() for path in sorted(files) if path not in linked] == []


def test_the_architecture_page_names_every_room() -> None:
    rooms = [path.parent.relative_to(ROOT / "mpq").as_posix() for path in (ROOT / "mpq").rglob("__init__.py")]
    text = (DOCS / "architecture.md").read_text()
    assert [room for room in sorted(rooms) if room != "." and room.count("/") < 2 and f"`{room}/" not in text] == []


def test_the_session_is_that_of_its_script_and_prints_what_it_shows() -> None:
    page = DOCS / "session.md"
    shown = [command for language, text in documents.blocks(page) if language == "console" for command, _ in documents.commands(text)]
    assert shown == [command for _, commands in STEPS for command in commands], "run: python -m mpq.demo.session > docs/session.md"
    write_demo("digits", Path())
    documents.run(page)


def test_the_recipe_in_one_command_runs(tmp_path_factory: pytest.TempPathFactory) -> None:
    write_demo("digits", Path())
    documents.run(recipe("In one command", tmp_path_factory.mktemp("recipes")))


def test_the_recipes_for_a_cnn_and_its_gate_run(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    write_demo("digits", Path())
    elsewhere = tmp_path_factory.mktemp("recipes")
    documents.run(recipe("CNN for a phone", elsewhere))
    gate = recipe("CI gate", elsewhere)
    budgets = next(text for language, text in documents.blocks(gate) if language == "yaml")
    assert [error.message for error in Draft202012Validator(schema("budgets")).iter_errors(yaml.safe_load(budgets))] == []
    (tmp_path / "mpq-budgets.yaml").write_text(budgets)
    documents.run(gate)


def test_the_recipes_for_vllm_and_torchao_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.importorskip("compressed_tensors")
    from tests.cookbook import llama

    llama(Path())
    elsewhere = tmp_path_factory.mktemp("recipes")
    documents.run(recipe("LLM for vLLM", elsewhere))
    if importlib.util.find_spec("torchao") is not None:
        own = recipe("LLM for torchao", elsewhere)
        documents.run(own, only=("console",))
        ((_, program),) = [block for block in documents.blocks(own) if block[0] == "python"]  # alone, since torchao warns while imported
        assert 0 < float(printed_by(program).removeprefix("KL divergence: ")) < 0.1


def test_the_recipe_for_ternary_weights_runs_in_a_short_form(tmp_path_factory: pytest.TempPathFactory) -> None:
    write_demo("digits", Path())
    own = recipe("Ternary weights in your own loop", tmp_path_factory.mktemp("recipes"))
    text = own.read_text()
    assert text.count("EPOCHS = 60\n") == 1
    own.write_text(text.replace("EPOCHS = 60\n", "EPOCHS = 2\n"))
    documents.run(own)
    assert Path("model.mpq.safetensors").stat().st_size == read_plan(Path("plan.yaml")).size.file_bytes


def test_the_recipe_for_trainer_runs(tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.importorskip("accelerate")
    from tests.cookbook import llama

    llama(Path())
    own = recipe("LLM trained with Trainer", tmp_path_factory.mktemp("recipes"))
    documents.run(own, only=("console",))
    ((_, program),) = [block for block in documents.blocks(own) if block[0] == "python"]  # alone, since Trainer warns while imported
    printed_by(program)
    assert Path("llama.mpq.safetensors").stat().st_size == read_plan(Path("plan.yaml")).size.file_bytes


def test_the_recipe_for_a_model_larger_than_memory_runs(tmp_path_factory: pytest.TempPathFactory) -> None:
    from tests.cookbook import llama

    llama(Path())
    documents.run(recipe("LLM larger than memory", tmp_path_factory.mktemp("recipes")))


def test_the_recipes_for_an_own_metric_and_latencies_run(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    write_demo("digits", Path())
    elsewhere = tmp_path_factory.mktemp("recipes")
    own = recipe("Own metric", elsewhere)
    ((_, program),) = [block for block in documents.blocks(own) if block[0] == "python"]
    (tmp_path / "evaluation.py").write_text(program)
    documents.run(own, only=("console",))
    documents.run(recipe("Own latency table", elsewhere))


def test_the_notebook_runs_and_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("MPLBACKEND", "agg")
    write_demo("digits", Path())
    documents.run(DOCS / "notebook.md")
    assert all(Path(f"{name}.png").stat().st_size > 10_000 for name in ("heat", "frontier", "bits"))
