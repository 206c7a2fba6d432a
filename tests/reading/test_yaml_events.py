"""YAML from outside: what it says, or one line about what is wrong; never more memory or depth than the limits allow."""

import pytest
import yaml

from mpq.reading.yaml_events import YamlProblem, yaml_line, yaml_value

ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(f"{n}: &{n} [{', '.join(['*a'] * 9)}]\n" for n in "bcdefghi")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ALIASES, "anchors such as &a are not supported: write the value out"),
        ("a: *b", "aliases such as *b are not supported: write the value out"),
        ("a: !!python/object/apply:os.system [x]", "the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not supported"),
        ("a: !x 1", "the tag '!x' is not supported"),
        ("a: " + "[" * 100_000, "it is nested more than 32 levels deep"),
        ("".join(" " * n + "a:\n" for n in range(2000)), "it is nested more than 32 levels deep"),
        ("a: 1\na: 2", "the key 'a' appears twice"),
        ("? [a]\n: 1", "a list or a mapping cannot be a key: use text"),
        ("a: 99999999999999999999", "the number 99999999999999999999 is out of range"),
        ("a: .inf", "the number .inf is out of range"),
        ("a\n---\nb", "a second document begins: keep one in a file"),
    ],
)
def test_what_grows_repeats_or_names_code_in_yaml_is_refused(text: str, said: str) -> None:
    with pytest.raises(YamlProblem) as error:
        yaml_value(text)
    assert str(error.value).startswith(said)


def test_yaml_means_what_it_says() -> None:
    assert yaml_value("a: [1, 2.5, yes, null, '1', 1e3]\nb: {c: text}\n2: x") == {
        "a": [1, 2.5, True, None, "1", "1e3"],
        "b": {"c": "text"},
        "2": "x",
    }
    assert yaml_value("") is None
    assert yaml_value("a: " + "9" * 5000) == {"a": "9" * 5000}  # longer than any number: text


def test_more_values_than_a_plan_ever_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpq.reading.yaml_events.YAML_NODES", 5)
    assert yaml_value("[1, 2, 3, 4]") == [1, 2, 3, 4]
    with pytest.raises(YamlProblem, match="there are more than 5 values"):
        yaml_value("[1, 2, 3, 4, 5]")


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: 1\nb: 2\na: 3", 3), ("a:\n  - x\n  - *b", 3), ("a: [1,\n 2,\n .nan]", 3), ("a: 1\n---\nb: 2", 2), ("a: 1\n b: 2", 2)],
)
def test_a_problem_names_its_line(text: str, line: int) -> None:
    with pytest.raises(YamlProblem) as error:
        yaml_value(text)
    assert error.value.line == line


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0x1F", 31),
        ("0o17", "0o17"),  # YAML 1.1 has other octal numbers
        ("017", 15),
        ("1_000", 1000),
        ("-3", -3),
        ("1.5e+3", 1500.0),
        ("0b_", "0b_"),
        ("~", None),
        ("", None),
        ("No", False),
        ("2024-01-31", "2024-01-31"),
        ("'12'", "12"),
        ('"yes"', "yes"),
        ("int4-g32", "int4-g32"),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
    ],
)
def test_scalars_are_those_of_yaml_1_1_and_dates_stay_text(text: str, value: object) -> None:
    found = yaml_value(f"a: {text}")["a"]
    assert (found, type(found)) == (value, type(value))


def test_keys_are_always_text() -> None:
    assert yaml_value("{1: a, yes: b, ~: c, 2024-01-31: d}") == {"1": "a", "yes": "b", "~": "c", "2024-01-31": "d"}


@pytest.mark.parametrize("loader", ["SafeLoader", "CSafeLoader"])
def test_half_a_character_is_refused_with_and_without_libyaml(loader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpq.reading.yaml_events._LOADER", getattr(yaml, loader, yaml.SafeLoader))
    with pytest.raises(YamlProblem, match=r"holds an invalid character|invalid Unicode character"):
        yaml_value('a: "\\ud83d"')


def test_the_line_of_a_problem_is_the_same_without_libyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpq.reading.yaml_events._LOADER", yaml.SafeLoader)
    with pytest.raises(YamlProblem) as error:
        yaml_value("a: 1\nb: \x00")
    assert error.value.line == 2


def test_control_characters_are_refused_by_their_line() -> None:
    with pytest.raises(YamlProblem) as error:
        yaml_value("a: 1\nb: \x00")
    assert error.value.line == 2


def test_the_line_of_a_value_is_found_by_its_place() -> None:
    text = "a: 1\nb:\n  c: [1,\n   2]\n  d:\n    - x\n    - y: z\n"
    places: list[tuple[str | int, ...]] = [("a",), ("b", "c"), ("b", "c", 1), ("b", "d", 1, "y"), ("b", "e"), ("b", "d", 7)]
    assert [yaml_line(text, place) for place in places] == [1, 3, 4, 7, None, None]
    assert yaml_line("a: [", ("a",)) is None
