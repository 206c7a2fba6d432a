"""What the C library is asked for; where it is another one, nothing happens."""

import ctypes
from typing import Any

import pytest

from mpq.models.memory.malloc_trim import return_freed_memory, return_large_blocks


class Library:
    """A C library that notes its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def malloc_trim(self, pad: int) -> int:
        self.calls.append(("malloc_trim", pad))
        return 1

    def mallopt(self, option: int, value: int) -> int:
        self.calls.append(("mallopt", option, value))
        return 1


def test_glibc_is_asked_to_give_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library if name is None else None)
    return_freed_memory()
    return_large_blocks()
    assert library.calls == [("malloc_trim", 0), ("mallopt", -3, 1 << 20)]


@pytest.mark.parametrize("error", [OSError, AttributeError, TypeError])
def test_another_library_is_left_alone(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def refuse(_: object) -> Any:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    return_freed_memory()
    return_large_blocks()


def test_an_error_that_is_not_foreseen_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> Any:
        raise ValueError("unforeseen")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    with pytest.raises(ValueError, match=r"^unforeseen$"):
        return_freed_memory()


def test_this_system_takes_both_calls() -> None:
    return_freed_memory()
