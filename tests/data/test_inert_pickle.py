import collections
import io
import os
import pickle
from pathlib import Path

import pytest
import torch

from mpq.data import inert_pickle
from mpq.data.inert_pickle import named_globals, scan_pickle
from tests.hostile import records_of, saved


class Calls:
    def __init__(self, *what: object) -> None:
        self.what = what

    def __reduce__(self) -> tuple[object, ...]:
        return self.what[0], self.what[1:]


@pytest.mark.parametrize("protocol", range(6))
def test_a_scan_names_what_a_pickle_would_call_and_calls_nothing(protocol: int, tmp_path: Path) -> None:
    content = pickle.dumps([Calls(os.mkdir, str(tmp_path / "made")), {"a": Calls(os.getcwd)}], protocol)
    assert scan_pickle(content).globals == [f"{os.mkdir.__module__}.mkdir", f"{os.getcwd.__module__}.getcwd"]
    assert not (tmp_path / "made").exists()


def test_names_of_python_2_are_those_that_a_loader_would_find() -> None:
    assert scan_pickle(b"c__builtin__\neval\n.").globals == ["builtins.eval"]


def test_a_scan_lists_the_storages_of_tensors_with_their_sizes() -> None:
    records = records_of(saved({"w": torch.zeros(3, 5)}))
    (storage,) = scan_pickle(next(raw for name, raw in records.items() if name.endswith("data.pkl"))).storages
    assert storage[2:] == ("0", "cpu", 15)


@pytest.mark.parametrize("content", [b"", b"\x80\x05", b"garbage", b"\x82\x01.", b"\x80\x02(((", b"\x80\x04\x96" + b"\xff" * 8])
def test_a_damaged_pickle_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="a damaged pickle"):
        scan_pickle(content)


def test_what_stands_before_the_damage_is_named() -> None:
    assert named_globals(io.BytesIO(pickle.dumps(Calls(os.getcwd))[:-1])) == [f"{os.getcwd.__module__}.getcwd"]


def test_every_call_is_noted_with_its_arguments() -> None:
    found = scan_pickle(pickle.dumps(Calls(os.mkdir, "a", 3)))
    assert found.calls == [(f"{os.mkdir.__module__}.mkdir", ("a", 3))]


def test_plain_values_call_and_import_nothing() -> None:
    content = {"a": [1, 2.5, None, True, b"x", "y"], "b": ({1, 2}, frozenset([3])), "c": 1 << 80}
    found = scan_pickle(pickle.dumps(content, 4))
    assert (found.globals, found.calls, found.storages) == ([], [], [])


def test_containers_of_classes_are_filled_without_being_made() -> None:
    content = collections.OrderedDict(a=collections.deque([1, 2]), b=collections.Counter("aab"))
    assert set(scan_pickle(pickle.dumps(content)).globals) == {"collections.OrderedDict", "collections.deque", "collections.Counter"}


def test_a_pickle_that_is_too_large_is_not_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    content = pickle.dumps("x" * 100)
    monkeypatch.setattr(inert_pickle, "PICKLE_BYTES", len(content))
    scan_pickle(content)
    monkeypatch.setattr(inert_pickle, "PICKLE_BYTES", len(content) - 1)
    with pytest.raises(ValueError, match=rf"^a pickle of {len(content)} bytes, more than the {len(content) - 1} allowed$"):
        scan_pickle(content)


def test_several_pickles_of_a_file_are_named_in_order_and_no_more_than_asked() -> None:
    content = b"".join(pickle.dumps(Calls(call)) for call in (os.getcwd, os.getpid, os.urandom))
    names = [f"{os.getcwd.__module__}.{name}" for name in ("getcwd", "getpid", "urandom")]
    assert named_globals(io.BytesIO(content), pickles=2) == names[:2]
    assert named_globals(io.BytesIO(content), pickles=5) == names
