from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpq.cli.guard import guarded
from mpq.errors import OutputError


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any] | None]:
    """A guarded command, called in a folder with the files a, b and c; what it was given, or nothing if it was refused."""
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        Path(name).write_text(name)
    given: list[dict[str, Any]] = []

    def run(**values: Any) -> dict[str, Any] | None:
        given.clear()
        try:
            guarded(lambda **found: given.append(found))(**values)
        except OutputError:
            assert given == []
            return None
        return given[0]

    return run


def test_values_reach_the_command_as_they_are(call: Callable[..., Any]) -> None:
    values = {"output": Path("new"), "model": Path("a"), "calib": "b", "trials": 3, "files": [Path("a"), Path("b")], "junit": None}
    assert call(**values) == values


@pytest.mark.parametrize("place", ["output", "junit"])
@pytest.mark.parametrize(
    "inputs",
    [
        {"model": Path("a")},
        {"model": Path("./a")},
        {"files": [Path("b"), Path("a")]},
        {"calib": "a"},
        {"data": "a?batch"},
        {"baseline": "a"},
        {"old": "a"},
        {"cost": ["a=5ms"]},
    ],
)
def test_an_output_that_is_an_input_is_refused_before_the_command_begins(
    call: Callable[..., Any], place: str, inputs: dict[str, Any]
) -> None:
    assert call(**inputs, **{place: Path("a")}) is None
    assert call(**inputs, **{place: Path("c")}) is not None
    assert Path("a").read_text() == "a"


def test_a_link_is_no_plain_file_and_neither_is_another_name_of_an_input(call: Callable[..., Any]) -> None:
    Path("link").symlink_to("b")
    Path("same").hardlink_to("a")
    assert call(output=Path("link")) is None
    assert call(output=Path("same"), model=Path("a")) is None


def test_a_folder_may_be_an_output(call: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert call(output=Path("folder"), model=Path("a")) is not None


@pytest.mark.parametrize("name", ["shards", "keep", "offload"])
def test_folders_that_are_written_to_are_no_inputs(call: Callable[..., Any], name: str) -> None:
    assert call(**{name: Path("a")}, output=Path("a")) is not None


def test_other_text_names_no_file(call: Callable[..., Any]) -> None:
    assert call(budget="a", output=Path("a")) is not None
