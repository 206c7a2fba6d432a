"""YAML and JSON of strangers: what stands in them, or one line; never more memory or depth than the limits allow."""

from pathlib import Path

import pytest

from mpq.errors import FormatError
from mpq.reading.documents import json_value, read_yaml
from mpq.reading.yaml_events import YamlProblem, yaml_value

ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(f"{n}: &{n} [{', '.join(['*a'] * 9)}]\n" for n in "bcdefghi")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ALIASES, "the anchor &a is not read: write out what it stands for"),
        ("a: *b", "the alias *b is not read: write out what it stands for"),
        ("a: !!python/object/apply:os.system [x]", "the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not read"),
        ("a: !x 1", "the tag '!x' is not read"),
        ("a: " + "[" * 100_000, "it is nested more than 32 levels deep"),
        ("".join(" " * n + "a:\n" for n in range(2000)), "it is nested more than 32 levels deep"),
        ("a: 1\na: 2", "the key 'a' is there twice"),
        ("? [a]\n: 1", "a list or a mapping is not a key: write text"),
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
    ("text", "said"),
    [
        ("[" * 100_000, "nested more than 32 levels deep"),
        ('{"a":' * 100_000, "nested more than 32 levels deep"),
        ('{"a": ' + "9" * 100_000 + "}", "takes more than 64 bits"),
        ('{"a": 1e999}', "is out of range"),
        ('{"a": NaN}', "NaN is not a number in JSON"),
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
        ('"\\ud83d"', "surrogates not allowed"),
    ],
)
def test_json_is_bounded_in_the_same_way(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        json_value(text.encode())


def test_brackets_in_texts_are_no_depth() -> None:
    assert json_value(b'{"a": "' + b"[" * 1000 + b'"}') == {"a": "[" * 1000}


def test_a_file_of_more_bytes_than_the_limit_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "large.yaml").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(FormatError, match="has more than 16,777,216 bytes, which is too large to be right: name a plan"):
        read_yaml(tmp_path / "large.yaml", error=FormatError, absent="name a plan", remedy="make it again")
