import pytest

from mpq.errors import UsageError
from mpq.export.base import Target
from mpq.export.registry import TARGETS, target_named


@pytest.mark.parametrize("name", TARGETS)
def test_each_name_gives_a_new_target_of_a_class_of_its_own(name: str) -> None:
    found = target_named(name)
    assert isinstance(found, Target)
    assert target_named(name) is not found
    assert [other for other in TARGETS if type(target_named(other)) is type(found)] == [name]


def test_those_without_weights_say_so_in_their_words() -> None:
    for name, words in TARGETS.items():
        told = "no weights" in words or "the file for llama-quantize" in words
        assert told is not target_named(name).needs_weights


@pytest.mark.parametrize("name", ["", "ONNX", "auto", "gguf "])
def test_no_other_name_is_a_target(name: str) -> None:
    with pytest.raises(UsageError) as error:
        target_named(name)
    assert str(error.value) == f"'{name}' is not a target: use one of {', '.join(TARGETS)}"
