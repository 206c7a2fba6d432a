import re
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from mpq.cli.main import app
from mpq.cli.panels import PANELS
from mpq.cli.reference_page import commands_of

ROOT: Any = get_command(app)


@pytest.mark.parametrize("command", PANELS)
def test_every_option_that_has_a_panel_exists_and_stands_in_it(command: str) -> None:
    found = {parameter.name: parameter for parameter in ROOT.commands[command].params}
    for panel, names in PANELS[command].items():
        for name in names:
            assert found[name].rich_help_panel == panel


@pytest.mark.parametrize("command", ["search", "profile", "apply", "recover", "eval", "bench", "export", "show"])
def test_the_unquantized_model_is_named_by_one_option_everywhere(command: str) -> None:
    (found,) = [each for each in ROOT.commands[command].params if "--reference" in each.opts]
    assert (found.name, found.help, found.metavar) == ("model", "The unquantized model, if it has moved.", "MODEL")
    assert found.rich_help_panel == "Model"


@pytest.mark.parametrize("command", [name for name, _ in commands_of(ROOT)])
def test_words_and_no_types_stand_for_values(command: str) -> None:
    printed = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200"}).output
    assert "--help" in printed
    assert re.findall(r"<\S*>", printed) == []


def test_options_without_a_word_of_their_own_name_the_kind_of_their_value() -> None:
    printed = CliRunner().invoke(app, ["check", "--help"], env={"COLUMNS": "200"}).output
    found = [" ".join(line.split()[1:4]) for line in printed.splitlines()]
    assert {"--budget TEXT Size", "--max-error NUMBER Limit", "files... Plans, artifacts,"} <= set(found)


def test_the_options_for_completion_show_no_word_for_a_value() -> None:
    printed = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    assert "--install-completion" in printed
    assert re.findall(r"<\S*>", printed) == []


def test_the_first_options_are_those_that_most_people_use() -> None:
    first = [each.name for each in ROOT.commands["search"].params if each.name not in sum(PANELS["search"].values(), ())]
    assert first[:5] == ["sensitivity", "budget", "output", "pin", "max_error"]
