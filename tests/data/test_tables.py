import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mpq.data import tables
from mpq.data.tables import rows_of, table_files
from mpq.errors import DataError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
ROWS = [{"text": f"story {number}", "n": number} for number in range(100)]


def write_parquet(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def write_arrow(path: Path, rows: list[dict[str, Any]] = ROWS, *, stream: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(rows)
    with (pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file)(str(path), table.schema) as writer:
        writer.write_table(table)
    return path


def saved(folder: Path, rows: list[dict[str, Any]], shards: int = 2) -> Path:
    """A split as save_to_disk of `datasets` writes it."""
    names = [f"data-{number:05d}-of-{shards:05d}.arrow" for number in range(shards)]
    for number, name in enumerate(names):
        write_arrow(folder / name, rows[number::shards])
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names], "_split": "train"}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def read(path: Path, split: str | None = None) -> list[dict[str, Any]]:
    files = table_files(path, "d", split=split)
    assert files is not None
    found = list(rows_of(files, "d"))
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    return [row for _, row in found]


def refused(path: Path, split: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        read(path, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_parquet_file_and_both_kinds_of_arrow_give_their_rows(tmp_path: Path) -> None:
    assert read(write_parquet(tmp_path / "a.bin")) == ROWS
    assert read(write_arrow(tmp_path / "b.bin")) == ROWS
    assert read(write_arrow(tmp_path / "c.bin", stream=False)) == ROWS


def test_a_saved_folder_gives_its_shards_in_order(tmp_path: Path) -> None:
    assert read(saved(tmp_path / "d", ROWS)) == ROWS[::2] + ROWS[1::2]


def test_a_folder_of_splits_asks_which(tmp_path: Path) -> None:
    saved(tmp_path / "d" / "train", ROWS)
    saved(tmp_path / "d" / "test", ROWS[:3], shards=1)
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert read(tmp_path / "d", "test") == ROWS[:3]
    assert refused(tmp_path / "d") == "d holds the splits 'train', 'test': choose one, as in 'd?split=train'"
    assert refused(tmp_path / "d", "dev") == "d has no split 'dev': it holds 'train', 'test'"


@pytest.mark.parametrize("inner", ["", "data"])
def test_shards_of_a_hub_are_splits_by_their_names(tmp_path: Path, inner: str) -> None:
    folder = tmp_path / "d"
    for name, rows in (("train-00000-of-00002", ROWS[:5]), ("train-00001-of-00002", ROWS[5:7]), ("validation-00000-of-00001", ROWS[:1])):
        write_parquet(folder / inner / f"{name}.parquet", rows)
    assert read(folder, "train") == ROWS[:7]
    assert read(folder, "validation") == ROWS[:1]


def test_other_files_and_folders_are_not_tables(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("PAR is a word")
    assert table_files(tmp_path / "t.txt", "d") is None
    assert table_files(tmp_path, "d") is None
    assert table_files(tmp_path / "nothing", "d") is None


@pytest.mark.parametrize("name", ["../secret.arrow", "/etc/passwd", "a/b.arrow", ""])
def test_an_index_cannot_name_files_outside_of_its_folder(tmp_path: Path, name: str) -> None:
    folder = saved(tmp_path / "d", ROWS)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    assert refused(folder).startswith("state.json of d names ")


@pytest.mark.parametrize("text", ["", "[1]", '{"_data_files": 3}', "[" * 5000, '{"_data_files": []}'])
def test_a_damaged_index_is_refused(tmp_path: Path, text: str) -> None:
    folder = saved(tmp_path / "d", ROWS)
    (folder / "state.json").write_text(text)
    assert refused(folder).endswith("save the data again")


@pytest.mark.parametrize("write", [write_parquet, write_arrow])
def test_a_damaged_file_is_named(tmp_path: Path, write: Any) -> None:
    path = write(tmp_path / "a.bin")
    path.write_bytes(path.read_bytes()[:-300])
    assert refused(path).startswith("a.bin of d cannot be read (")


def test_rows_that_unpack_to_too_much_are_refused_before_they_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.bin", [{"text": "a" * 100_000}] * 20)
    assert path.stat().st_size < 50_000
    monkeypatch.setattr(tables, "TABLE_BATCH_BYTES", 50_000)
    assert refused(path).startswith("a.bin of d has a row group of ")
    assert refused(write_arrow(tmp_path / "b.bin", [{"text": "a" * 60_000}])).startswith("b.bin of d holds rows of 60,0")


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.bin")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert refused(path) == "d is a table, which needs pyarrow: pip install 'mpq-torch[data]', or give JSONL"
