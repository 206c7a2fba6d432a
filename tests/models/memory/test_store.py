import hashlib
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mpq.models.memory.store import Folder, Scope, Store, as_bytes, text_of
from mpq.writing.locks import lock
from mpq.writing.outputs import own_mark

PARTS = {"codes": torch.arange(40, dtype=torch.uint8), "scales": torch.tensor([[0.5, -2.0]], dtype=torch.float16)}
MOST = 44


def same(found: dict[str, Tensor] | None, parts: dict[str, Tensor] = PARTS) -> bool:
    return found is not None and found.keys() == parts.keys() and all(torch.equal(found[name], parts[name]) for name in parts)


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if len(path.name) == 64)


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_what_was_put_is_there_whatever_the_memory(memory: int) -> None:
    store = Store(memory=memory)
    others = {"codes": torch.ones(3, dtype=torch.uint8)}
    store.put("a", PARTS)
    store.put("b", others)
    assert same(store.get("a", MOST))
    assert same(store.get("b", MOST), others)
    assert store.get("c", MOST) is None


def test_memory_holds_no_more_than_its_limit_but_for_the_last_entry() -> None:
    store = Store(memory=100)
    for key in "abcd":
        store.put(key, PARTS)
    assert list(store._kept) == ["c", "d"]
    store.get("a", MOST)
    assert list(store._kept) == ["d", "a"]


def test_a_folder_keeps_entries_for_other_stores(tmp_path: Path) -> None:
    Store(Folder(tmp_path / "cache")).put("a", PARTS)
    assert same(Store(Folder(tmp_path / "cache")).get("a", MOST))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [hashlib.sha256(b"a").hexdigest()]


def test_a_scope_keeps_models_and_data_apart() -> None:
    store = Store()
    Scope(store, {"model": "1"}).put("a", PARTS)
    assert same(Scope(store, {"model": "1"}).get("a", MOST))
    assert Scope(store, {"model": "2"}).get("a", MOST) is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "not safetensors", "too large", "a folder", "a link to nowhere", "a pipe"])
def test_a_damaged_entry_counts_as_absent_and_is_written_again(tmp_path: Path, damage: str) -> None:
    Store(Folder(tmp_path)).put("a", PARTS)
    (path,) = entries(tmp_path)
    content = path.read_bytes()
    junk = b"junk" * 20
    changed = {
        "cut": content[:-1],
        "flipped": content[:-1] + bytes([content[-1] ^ 1]),
        "empty": b"",
        "not safetensors": hashlib.sha256(junk).digest() + junk,
        "too large": content + bytes(1 << 17),
    }
    path.unlink()
    if damage in changed:
        path.write_bytes(changed[damage])
    elif damage == "a folder":
        path.mkdir()
    elif damage == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "nowhere")
    store = Store(Folder(tmp_path))
    assert store.get("a", MOST) is None
    store.put("a", PARTS)
    assert same(store.get("a", MOST))
    assert same(Store(Folder(tmp_path)).get("a", MOST)) == (damage != "a folder")


def test_beyond_the_limit_the_entries_used_longest_ago_go(tmp_path: Path) -> None:
    for number, key in enumerate("abc"):
        Store(Folder(tmp_path)).put(key, PARTS)
        path = tmp_path / hashlib.sha256(key.encode()).hexdigest()
        os.utime(path, (1000 + number, 1000 + number))
    size = path.stat().st_size
    (tmp_path / "notes.txt").write_text("mine")
    assert same(Store(Folder(tmp_path)).get("a", MOST))  # so b was used longest ago
    Store(Folder(tmp_path, limit=3 * size)).put("d", PARTS)
    kept = [key for key in "abcd" if Store(Folder(tmp_path)).get(key, MOST) is not None]
    assert kept == ["a", "c", "d"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_process_keeps_what_it_wrote_even_if_the_folder_is_too_small(tmp_path: Path) -> None:
    store = Store(Folder(tmp_path, limit=300), memory=0)
    for key in "abcd":
        store.put(key, PARTS)
    assert all(same(store.get(key, MOST)) for key in "abcd")
    assert sum(path.stat().st_size for path in entries(tmp_path)) <= 300


def test_a_folder_that_cannot_be_written_is_told_and_does_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "cache"
    store = Store(Folder(folder), memory=0)
    store.put("a", PARTS)
    assert same(store.get("a", MOST))
    assert store.notes == [
        f"no more entries are written to the cache {tmp_path / 'file' / 'cache'}: Not a directory; --cache names another folder"
    ]


def test_what_killed_processes_were_writing_goes_with_the_next_entry(tmp_path: Path) -> None:
    name = f"{'0' * 64}.partial"
    dead, of_others, alive = (tmp_path / f".{mark}.{name}" for mark in (own_mark(), "0000aaaa-1-0", own_mark()))
    for path in (dead, of_others, alive):
        path.write_bytes(b"x")
    with alive.open("rb+") as file:
        assert lock(file.fileno())
        Store(Folder(tmp_path)).put("a", PARTS)
    assert [path.exists() for path in (dead, of_others, alive)] == [False, True, True]


def test_texts_come_back_safe_to_print() -> None:
    assert text_of(as_bytes("its inputs are not finite")) == "its inputs are not finite"
    assert "\x1b" not in text_of(torch.tensor([27, 91], dtype=torch.uint8))
    assert text_of(None) == text_of(torch.zeros(2)) == ""
