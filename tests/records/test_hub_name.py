from pathlib import Path

import pytest

from mpq.errors import UsageError
from mpq.records.hub_name import HubName, hub_name, is_repo


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hf://org/name", HubName("org/name")),
        ("hf://org/name@main", HubName("org/name", "main")),
        ("hf://o/n.1_b-c@refs/pr/3", HubName("o/n.1_b-c", "refs/pr/3")),
    ],
)
def test_a_name_is_read_and_written(text: str, name: HubName) -> None:
    assert hub_name(text) == hub_name(Path(text)) == name
    assert str(name) == text


@pytest.mark.parametrize("text", [None, "", "models/llama", "hf/org/name", "/hf://org/name", "org/name"])
def test_a_path_is_no_name(text: str | None) -> None:
    assert hub_name(text) is None


@pytest.mark.parametrize("rest", ["name", "org/name/more", "org/name@", "../name", "org/..", "org/na me", "", "org/name@-x", "-org/name"])
def test_other_names_are_refused(rest: str) -> None:
    with pytest.raises(UsageError) as error:
        hub_name(f"hf://{rest}")
    assert str(error.value) == f"hf://{rest} is not a model of the hub: write hf://ORG/NAME or hf://ORG/NAME@REVISION"


def test_a_name_at_a_commit() -> None:
    assert str(HubName("org/name", "main").at("abc")) == "hf://org/name@abc"


@pytest.mark.parametrize(("text", "found"), [("org/name", True), ("name", False), ("org/name@main", False), ("a/b/c", False)])
def test_a_repository_has_an_organization_and_a_name(text: str, found: bool) -> None:
    assert is_repo(text) == found
