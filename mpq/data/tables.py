"""Rows of Parquet and Arrow files, and of folders of Hugging Face `datasets`, as plain mappings.

    rows.parquet, data-00000-of-00001.arrow
    folder of save_to_disk          state.json names the files; dataset_dict.json names folders of splits
    folder as on a hub              train-00000-of-00002.parquet, in the folder or in data/

Only values are read: no loading script, no pickle, no type with code. Rows are read one batch at a time, so a reader that stops early reads
no more than needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mpq.distribution import install
from mpq.errors import DataError
from mpq.files import first_bytes
from mpq.limits import TABLE_BATCH_BYTES, TABLE_FILES
from mpq.reading.documents import read_json
from mpq.shown import first_line, shown

_SHARD = re.compile(r"(?P<split>[\w.]+?)(-\d{5}-of-\d{5})?(-[0-9a-f]{16})?")
_PLAIN = re.compile(r"[\w][\w.\-]*")
_ROWS_AT_ONCE = 64
_MAGIC = {b"PAR1": "parquet", b"ARRO": "arrow", b"\xff\xff\xff\xff": "arrow"}
Row = dict[str, Any]


def table_files(path: Path, source: str, *, split: str | None = None) -> list[Path] | None:
    """The Parquet or Arrow files with the rows of `path`, in order; None if it is something else.

    Args:
        path: one such file, or a folder of them.
        source: how the user wrote it, for messages.
        split: which split of a folder with several; None if there is one.

    Raises:
        DataError: if a folder has several splits and `split` is None or unknown, or its index is damaged.
    """
    if path.is_file():
        start = first_bytes(path, error=DataError, remedy="give a file of data", name=source)
        return [path] if start[:4] in _MAGIC else None
    if not path.is_dir():
        return None
    splits = _splits(path, source)
    if not splits:
        return None
    known = ", ".join(shown(name) for name in splits)
    if split is None and len(splits) > 1:
        raise DataError(f"{source} holds the splits {known}: choose one, as in '{source}?split={next(iter(splits))}'")
    if split is not None and split not in splits:
        raise DataError(f"{source} has no split {shown(split)}: it holds {known}")
    files = splits[next(iter(splits)) if split is None else split]
    if len(files) > TABLE_FILES:
        raise DataError(f"{source} has {len(files):,} files, more than the {TABLE_FILES:,} allowed: give one of them")
    return files


def rows_of(files: list[Path], source: str) -> Iterator[tuple[int, Row]]:
    """The number, from 1, and the fields of every row.

    Raises:
        DataError: if pyarrow is missing, or a file is damaged.
    """
    arrow = _pyarrow(source)
    number = 0
    for path in files:
        try:
            for batch in _batches(arrow, path, source):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except DataError:
            raise
        except Exception as error:  # pyarrow may raise any error, depending on the file
            raise DataError(f"{path.name} of {source} cannot be read ({first_line(error)}): save the data again") from error


def _batches(arrow: Any, path: Path, source: str) -> Iterator[Any]:
    """Small batches of one file, each checked before it is turned into Python values."""
    with path.open("rb") as file:
        if file.read(4) == b"PAR1":
            file.seek(0)
            found = _parquet_batches(file, path, source)
        else:
            file.seek(0)
            found = _arrow_batches(arrow, file)
        for batch in found:
            for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
                part = batch.slice(start, _ROWS_AT_ONCE)
                if part.nbytes > TABLE_BATCH_BYTES:
                    raise DataError(
                        f"{path.name} of {source} holds rows of {part.nbytes // part.num_rows:,} bytes, too large to read: shorten them"
                    )
                yield part


def _parquet_batches(file: Any, path: Path, source: str) -> Iterator[Any]:
    from pyarrow import parquet

    table = parquet.ParquetFile(file)
    for group in range(table.metadata.num_row_groups):
        size = table.metadata.row_group(group).total_byte_size
        if size > TABLE_BATCH_BYTES:
            raise DataError(f"{path.name} of {source} has a row group of {size:,} bytes, too large to read: write smaller ones")
    yield from table.iter_batches(batch_size=_ROWS_AT_ONCE)


def _arrow_batches(arrow: Any, file: Any) -> Iterator[Any]:
    """Batches of a stream, which `datasets` writes, or of a file with an index."""
    if file.read(6) == b"ARROW1":
        file.seek(0)
        table = arrow.ipc.open_file(file)
        yield from (table.get_batch(number) for number in range(table.num_record_batches))
    else:
        file.seek(0)
        yield from arrow.ipc.open_stream(file)


def _splits(folder: Path, source: str) -> dict[str, list[Path]]:
    """The files of each split of a folder, by name; empty if the folder has no tables."""
    if (folder / "dataset_dict.json").is_file():
        names = _names(folder / "dataset_dict.json", source, lambda value: value["splits"])
        return {name: _saved(folder / name, source) for name in names}
    if (folder / "state.json").is_file():
        return {"all": _saved(folder, source)}
    found: dict[str, list[Path]] = {}
    for path in sorted([*folder.glob("*.parquet"), *folder.glob("*.arrow"), *folder.glob("data/*.parquet")]):
        match = _SHARD.fullmatch(path.stem)
        found.setdefault(match["split"] if match else path.stem, []).append(path)
    return found


def _saved(folder: Path, source: str) -> list[Path]:
    """The files of one split, from the index of save_to_disk."""
    names = _names(folder / "state.json", source, lambda value: [one["filename"] for one in value["_data_files"]])
    return [folder / name for name in names]


def _names(index: Path, source: str, read: Any) -> list[str]:
    """File names in the index of a folder; only plain names are allowed, so that no file outside the folder is read."""
    document = read_json(index, error=DataError, absent="save the data again", remedy="save the data again")
    try:
        names = [str(name) for name in read(document.value)]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{index.name} of {source} cannot be read ({first_line(error)}): save the data again") from error
    stray = next((name for name in names if not _PLAIN.fullmatch(name)), None)
    if stray is not None or not names:
        raise DataError(f"{index.name} of {source} names {shown(stray) if stray else 'no files'}: save the data again")
    return names


def _pyarrow(source: str) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise DataError(f"{source} is a table, which needs pyarrow: {install('data')}, or give JSONL") from error
    return pyarrow
