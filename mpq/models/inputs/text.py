"""Text for language models: documents, their tokens, and windows of equal length; for encoders, one document is one sample.

Every document starts with the tokenizer's BOS, if it has one; all documents are concatenated and cut into windows of `seq_len` tokens, like
the calibration of GPTQ and its successors (Frantar et al. 2022). A JSONL file has one record per line, a table one per row;
`conversations.py` makes a document from each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from mpq.data.batch import Batch
from mpq.data.tables import rows_of, table_files
from mpq.distribution import install
from mpq.errors import DataError, UsageError
from mpq.files import open_file
from mpq.limits import TEXT_BYTES
from mpq.models.inputs.conversations import Documents
from mpq.models.running.forward import accepted
from mpq.models.sources.loaded import LoadedModel

DEFAULT_SEQ_LEN = 512
_POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "n_ctx")
_DOCUMENTS_AT_ONCE = 64
_BATCH = 8
_VALUES = 5  # values of a field that a message lists
_ENCODED = ("input_ids", "attention_mask", "token_type_ids")


def windows(
    path: Path,
    *,
    source: str,
    model: LoadedModel,
    seq_len: int | None,
    num_samples: int | None,
    only: tuple[str, str] | None,
    field: str | None = None,
) -> tuple[Batch, list[str]]:
    """All windows of the text in `path` as one batch of "input_ids", and notes on how they were cut.

    Args:
        path: UTF-8 text, or JSONL.
        source: how the user wrote it, for messages.
        model: gives the tokenizer and the number of positions.
        seq_len: tokens per window; None means the model's positions, at most 512.
        num_samples: use only this many windows; None uses all.
        only: a field and its value; other lines of the JSONL are skipped.
        field: the JSONL field with the text; None looks for one.

    Raises:
        DataError: if the model has no tokenizer, the file is not text, or the text is shorter than one window.
        UsageError: if the model has fewer than `seq_len` positions.
    """
    if model.tokenizer is None:
        next(read_documents(path, source, only=only, field=field))  # a file that is not text is refused as such
        raise DataError(f"{source} is text, and the model has no tokenizer: give token ids, a .pt file with an integer tensor [N, T]")
    length = _window_length(model, seq_len)
    tokenizer = _load_tokenizer(model.tokenizer)
    how: list[str] = []
    documents = read_documents(path, source, tokenizer=tokenizer, only=only, field=field, notes=how)
    enough = None if num_samples is None else num_samples * length
    tokens, used = _tokens(documents, tokenizer, enough)
    count = len(tokens) // length if num_samples is None else min(num_samples, len(tokens) // length)
    if count == 0:
        raise DataError(f"{source} holds {len(tokens)} tokens, fewer than one window of {length}: give more text or a smaller --seq-len")
    kept = torch.tensor(tokens[: count * length], dtype=torch.int64).reshape(count, length)
    begins = "each starting with BOS" if tokenizer.bos_token_id is not None else "without BOS, because the tokenizer has none"
    notes = [*how, f"{used} document{'s' if used > 1 else ''}, {begins}"]
    if num_samples is None and len(tokens) > kept.numel():
        notes.append(f"the last {len(tokens) - kept.numel()} tokens do not fill a window and are dropped")
    return Batch((), {"input_ids": kept}), notes


def is_encoder(model: LoadedModel) -> bool:
    """Whether a Hugging Face model does not generate text, so that it reads whole documents instead of windows of running text."""
    generates = getattr(model.module, "can_generate", None)
    return model.tokenizer is not None and callable(generates) and not generates()


def padded_documents(
    path: Path,
    *,
    source: str,
    model: LoadedModel,
    seq_len: int | None,
    num_samples: int | None,
    batch_size: int | None,
    only: tuple[str, str] | None,
    field: str | None = None,
) -> tuple[list[Batch], list[str]]:
    """One sample for each document, or each line of plain text, with its special tokens, padded to the longest of its batch; and notes.

    Args:
        path: UTF-8 text, or JSONL.
        source: how the user wrote it, for messages.
        model: gives the tokenizer and the number of positions.
        seq_len: maximum tokens; None means the model's positions, at most 512.
        num_samples: use only this many documents; None uses all.
        batch_size: documents per batch; None means 8.
        only: a field and its value; other lines of the JSONL are skipped.
        field: the JSONL field with the text; None looks for one.

    Raises:
        DataError: if the file is not text, or the tokenizer cannot be loaded.
        UsageError: if the model has fewer than `seq_len` positions.
    """
    length, size = _window_length(model, seq_len), batch_size or _BATCH
    assert model.tokenizer is not None
    tokenizer = _load_tokenizer(model.tokenizer)
    how: list[str] = []
    read = read_documents(path, source, tokenizer=tokenizer, only=only, field=field, by_line=True, notes=how)
    documents = list(islice(read, num_samples))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token  # masked, so any token works
    known, batches, full = accepted(model.module), [], list[str]()  # only documents that fill the window may have been cut
    for start in range(0, len(documents), size):
        some = documents[start : start + size]
        made = tokenizer(some, truncation=True, max_length=length, padding=True, return_tensors="pt")
        batches.append(Batch((), {name: made[name] for name in _ENCODED if name in made and name in known}))
        full += some if made["input_ids"].shape[1] >= length else []
    cut = sum(len(ids) > length for ids in tokenizer(full, truncation=False, verbose=False)["input_ids"]) if full else 0
    notes = [*how, "one document is one sample, with its special tokens, padded to the longest of its batch"]
    return batches, notes + ([f"{cut} documents are cut to {length} tokens"] if cut else [])


def read_documents(
    path: Path,
    source: str,
    *,
    tokenizer: Any = None,
    only: tuple[str, str] | None = None,
    field: str | None = None,
    by_line: bool = False,
    notes: list[str] | None = None,
) -> Iterator[str]:
    """The documents of a table or a JSONL file, or a text file as one document; with `by_line`, one document per line.

    Args:
        path: the file, or a folder of tables.
        source: how the user wrote it, for messages.
        tokenizer: the tokenizer with the chat template; None if there is none.
        only: a field and its value; other records are skipped. For a folder of tables, its split.
        field: the field with the text; None looks for one (`models/inputs/conversations.py`).
        by_line: whether each line of plain text is a document.
        notes: receives notes on how records were read.

    Raises:
        DataError: if the file is none of these, a record is damaged, or there is no text.
    """
    split = only[1] if only is not None and only[0] == "split" and path.is_dir() else None
    files = table_files(path, source, split=split)
    text = _text_of(path, source) if files is None else ""
    if files is None and not _is_jsonl(text):
        yield from _plain(text, source, only, field, by_line=by_line)
        return
    records = _records(text, source) if files is None else rows_of(files, source)
    records = records if only is None or split is not None else _selected(records, source, only)
    made = Documents(tokenizer, field, source, unit="line" if files is None else "row")
    yield from _documents(records, made, source, [] if notes is None else notes)


def _documents(records: Iterable[tuple[int, dict[str, Any]]], made: Documents, source: str, notes: list[str]) -> Iterator[str]:
    """The documents of all records that have text."""
    seen = taken = 0
    for number, record in records:
        document = made.of(record, number)
        taken += len(document)
        if taken > TEXT_BYTES:
            raise DataError(
                f"{source} has more than {TEXT_BYTES:,} characters of text, too many to read completely: limit them with --num-samples"
            )
        if document.strip():
            notes += made.notes if not seen else []
            seen += 1
            yield document
    if not seen:
        raise DataError(f"{source} holds no text: give at least one document")


def _text_of(path: Path, source: str) -> str:
    """The text of a file, read completely."""
    with open_file(path) as file:
        content = file.read(TEXT_BYTES + 1)
    if len(content) > TEXT_BYTES:
        raise DataError(f"{source} has more than {TEXT_BYTES:,} bytes of text, too many to read completely: use a part of it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is neither a file of tensors nor UTF-8 text (byte {error.start}): give one of these") from error
    if "\x00" in text:
        raise DataError(f"{source} is neither a file of tensors nor text: it contains zero bytes")
    return text


def _plain(text: str, source: str, only: tuple[str, str] | None, field: str | None, *, by_line: bool) -> list[str]:
    """Plain text as one document, or its lines."""
    if only is not None:
        raise DataError(f"{source} selects lines by '{only[0]}', but the file is plain text: leave out '?{only[0]}={only[1]}'")
    if field is not None:
        raise DataError(f"{source} is plain text and has no field '{field}': leave --text-field out")
    documents = [document for document in (text.splitlines() if by_line else [text]) if document.strip()]
    if not documents:
        raise DataError(f"{source} holds no text: give at least one document")
    return documents


def _is_jsonl(text: str) -> bool:
    first = next((line for line in text.split("\n") if line.strip()), "")
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _records(text: str, source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{source}, line {number}: not JSON ({error}); write one object per line") from error
        if not isinstance(record, dict):
            raise DataError(f"{source}, line {number}: not a JSON object; write one object per line")
        yield number, record


def _selected(records: Iterable[tuple[int, dict[str, Any]]], source: str, only: tuple[str, str]) -> Iterator[tuple[int, dict[str, Any]]]:
    (field, value), found, fields = only, dict[str, None](), list[str]()
    chosen = 0
    for number, record in records:
        if str(record.get(field)) == value:
            chosen += 1
            yield number, record
        elif field in record and len(found) < _VALUES:
            found[str(record[field])] = None
        fields = fields or list(record)
    if not chosen:
        known = f"its values are {', '.join(found)}" if found else f"the fields are {', '.join(fields)}"
        raise DataError(f"{source}: no line has {field}={value}; {known}")


def _load_tokenizer(directory: Path) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise DataError(f"reading text needs the extra 'hf': {install('hf')}, or give token ids as a .pt file") from error
    try:
        return AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers may raise any error, depending on the directory
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"the tokenizer in {directory} cannot be loaded ({reason}): give token ids as a .pt file") from error


def _tokens(documents: Iterable[str], tokenizer: Any, enough: int | None) -> tuple[list[int], int]:
    """The tokens of all documents, or of the first ones until there are `enough`, and the number of documents used.

    BOS is put before each document, unless a chat template has already done so.
    """
    start = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    tokens: list[int] = []
    used = 0
    remaining = iter(documents)
    while (enough is None or len(tokens) < enough) and (some := list(islice(remaining, _DOCUMENTS_AT_ONCE))):
        for ids in tokenizer(some, add_special_tokens=False, verbose=False)["input_ids"]:
            if enough is not None and len(tokens) >= enough:
                break
            tokens += ids if start and ids[:1] == start else [*start, *ids]
            used += 1
    return tokens, used


def _window_length(model: LoadedModel, seq_len: int | None) -> int:
    own = model.config or {}
    inner = own.get("text_config")
    config = {**own, **(inner if isinstance(inner, dict) else {})}
    positions = next((config[key] for key in _POSITIONS if isinstance(config.get(key), int) and config[key] > 1), None)
    if seq_len is None:
        return min(positions or DEFAULT_SEQ_LEN, DEFAULT_SEQ_LEN)
    if seq_len < 2:
        raise UsageError(f"--seq-len {seq_len} is too short: give 2 or more")
    if positions is not None and seq_len > positions:
        raise UsageError(f"--seq-len {seq_len} is longer than the model's {positions} positions: give {positions} or less")
    return seq_len
