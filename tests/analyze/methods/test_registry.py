import pytest

from mpq.analyze.methods.base import Method
from mpq.analyze.methods.fisher import Fisher
from mpq.analyze.methods.measure import Measure
from mpq.analyze.methods.registry import METHODS, method_named
from mpq.analyze.methods.weight import WeightOnly
from mpq.errors import UsageError


def test_each_name_gives_a_new_method_of_its_class() -> None:
    kinds: dict[str, type[Method]] = {"measure": Measure, "fisher": Fisher, "weight": WeightOnly}
    assert {name: type(method_named(name)) for name in METHODS} == kinds
    assert method_named("measure") is not method_named("measure")


@pytest.mark.parametrize("name", ["auto", "Measure", "", "fisher "])
def test_no_other_name_is_a_method(name: str) -> None:
    with pytest.raises(UsageError) as error:
        method_named(name)
    assert str(error.value) == f"'{name}' is not a method: use one of auto, measure, fisher, weight"
