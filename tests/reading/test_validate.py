from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, Struct

from mpq.errors import FormatError, UsageError
from mpq.reading.documents import Document, yaml_document
from mpq.reading.validate import named, validated, valued


class Inner(Struct, forbid_unknown_fields=True):
    size: Annotated[int, Meta(ge=1)] = 1
    kind: Literal["a", "b"] = "a"


class Outer(Struct):
    number: Annotated[float, Meta(le=1e150)] = 0
    share: Annotated[float, Meta(ge=0, lt=1)] = 0
    name: Annotated[str, Meta(max_length=4)] = ""
    limit: Annotated[str, Meta(extra={"give": "a size, for example 12MB"})] | None = None
    either: int | str | bool = 0
    flag: bool = False
    pair: Annotated[list[int], Meta(min_length=2, max_length=2)] | None = None
    entries: dict[Annotated[str, Meta(max_length=4)], list[Inner]] = {}


def reason(value: Any) -> str:
    with pytest.raises(FormatError) as caught:
        validated(Document(value, "x.yaml", remedy="fix it"), Outer)
    return str(caught.value).removeprefix("x.yaml: ").removesuffix("; fix it")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"number": "x"}, "number is 'x': give a number"),
        ({"number": 1e151}, "number is 1e+151: give a number of at most 1e+150"),
        ({"share": 1}, "share is 1: give a number, less than 1"),
        ({"share": -0.5}, "share is -0.5: give a number of 0 or more"),
        ({"name": "abcde"}, "name is 'abcde': give text of at most 4 characters"),
        ({"limit": 3}, "limit is 3: give a size, for example 12MB"),
        ({"either": None}, "either is empty: give true or false, a whole number or text"),
        ({"flag": 1}, "flag is 1: give true or false"),
        ({"pair": [1]}, "pair is [1]: give a list of 2 or more entries"),
        ({"entries": []}, "entries is []: give a mapping"),
        ({"entries": {"k": [{"size": 0}]}}, "entries.k[0].size is 0: give a whole number of 1 or more"),
        ({"entries": {"k": [{"kind": "c"}]}}, "entries.k[0].kind is 'c': give one of a, b"),
        ({"entries": {"k": [{"sise": 1}]}}, "entries.k[0] has the unknown key 'sise': use size, kind"),
        ({"entries": {"k": [], "too long": []}}, "entries has the key 'too long': give text of at most 4 characters"),
        ([], "it is []: give a mapping"),
    ],
)
def test_a_fault_is_told_with_its_place_its_value_and_what_would_be_right(value: Any, expected: str) -> None:
    assert reason(value) == expected


@pytest.mark.parametrize("at", range(7))
def test_the_broken_entry_of_a_mapping_is_found_wherever_it_is(at: int) -> None:
    entries: dict[str, Any] = {f"k{number}": [{"size": 1}] for number in range(7)}
    entries[f"k{at}"] = [{"size": 1}, {"size": 0}]
    assert reason({"entries": entries}) == f"entries.k{at}[1].size is 0: give a whole number of 1 or more"


def test_a_part_of_a_document_is_validated_with_its_place_line_and_error() -> None:
    document = yaml_document("a:\n- size: 1\n- size: 0\n", name="x.yaml", error=UsageError, remedy="fix it")
    assert validated(document, Inner, at=("a", 0)) == Inner(1)
    with pytest.raises(UsageError) as caught:
        validated(document, Inner, at=("a", 1))
    assert str(caught.value) == "x.yaml, line 3: a[1].size is 0: give a whole number of 1 or more; fix it"


def test_places_are_written_as_people_write_them() -> None:
    assert named(("budgets", 0, "files")) == "budgets[0].files"
    assert named((0, "a\n")) == "[0].a\\n"
    assert valued({"a": [1, {"b": 2}]}, ("a", 1, "b")) == 2


@pytest.mark.parametrize("value", [{"number": "\ud800"}, {"\udfff": 1}, {"entries": {"x": [{"kind": "\ud800"}]}}])
def test_half_of_a_surrogate_pair_is_refused(value: dict[str, Any]) -> None:
    assert reason(value) == "it holds half of a surrogate pair, which is not text"
