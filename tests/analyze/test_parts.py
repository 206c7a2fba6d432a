import pytest

from mpq.analyze.parts import layers_of_part, read_part
from mpq.errors import UsageError
from tests.small import linear, schemes

LAYERS = [linear("a", 4, 8), linear("b", 8, 8), linear("c", 4, 8), linear("d", 2, 8)]
CANDIDATES = {layer.name: schemes("int4", "int8") for layer in LAYERS}


def names(number: int, count: int) -> list[str]:
    return [layer.name for layer in layers_of_part(LAYERS, CANDIDATES, (number, count))]


def test_parts_are_all_layers_with_about_as_much_work_each() -> None:
    assert [names(number, 2) for number in (1, 2)] == [["b", "d"], ["a", "c"]]
    assert names(1, 1) == ["a", "b", "c", "d"]
    assert sorted(name for number in (1, 2, 3, 4) for name in names(number, 4)) == ["a", "b", "c", "d"]


def test_schemes_count_as_work_too() -> None:
    more = CANDIDATES | {"d": schemes(*(f"int{bits}" for bits in range(2, 9)), "fp16", "bf16")}
    assert [layer.name for layer in layers_of_part(LAYERS, more, (1, 2))] == ["d"] or "d" not in [
        layer.name for layer in layers_of_part(LAYERS, CANDIDATES, (2, 2))
    ]


def test_more_parts_than_layers_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^--part 2/5: there are only 4 layers$"):
        names(2, 5)


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "a/2", "1/2/3", "-1/2", "1/99999"])
def test_what_is_not_a_part_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a part: write 1/2 on one machine and 2/2 on another$"):
        read_part(text)


def test_a_part_is_its_number_and_that_of_all() -> None:
    assert read_part("2/3") == (2, 3)
