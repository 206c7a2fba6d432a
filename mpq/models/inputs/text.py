"""Text for language models: documents, their tokens, and windows of equal length; for encoders, one document is one sample.

Every document starts with the tokenizer's BOS, if it has one; all documents are concatenated and cut into windows of
`seq_len` tokens, as GPTQ and its successors calibrate (Frantar et al. 2022). A JSONL file holds one document per line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from mpq.data.batch import Batch
from mpq.distribution import install
from mpq.errors import DataError, UsageError
from mpq.files import open_file
from mpq.limits import TEXT_BYTES
from mpq.models.running.forward import accepted
from mpq.models.sources.loaded import LoadedModel
from mpq.shown import encodes

DEFAULT_SEQ_LEN = 512
_POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "n_ctx")
_DOCUMENTS_AT_ONCE = 64
_BATCH = 8
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
        seq_len: tokens of a window; None means the model's positions, at most 512.
        num_samples: the number of windows to stop at; None takes all.
        only: a field and its value; other lines of the JSONL are left out.
        field: of the JSONL, that holds the text; None looks for one.

    Raises:
        DataError: if the model has no tokenizer, the file is not text, or the text is shorter than one window.
        UsageError: if the model has fewer than `seq_len` positions.
    """
    documents = read_documents(path, source, only=only, field=field)
    if model.tokenizer is None:
        raise DataError(f"{source} is text, and the model has no tokenizer: give token ids, a .pt file with an integer tensor [N, T]")
    length = _window_length(model, seq_len)
    tokenizer = _load_tokenizer(model.tokenizer)
    enough = None if num_samples is None else num_samples * length
    tokens, used = _tokens(documents, tokenizer, enough)
    count = len(tokens) // length if num_samples is None else min(num_samples, len(tokens) // length)
    if count == 0:
        raise DataError(f"{source} holds {len(tokens)} tokens, fewer than one window of {length}: give more text or a smaller --seq-len")
    kept = torch.tensor(tokens[: count * length], dtype=torch.int64).reshape(count, length)
    begins = "each starting with BOS" if tokenizer.bos_token_id is not None else "without BOS, for the tokenizer has none"
    notes = [f"{used} document{'s' if used > 1 else ''}, {begins}"]
    if num_samples is None and len(tokens) > kept.numel():
        notes.append(f"the last {len(tokens) - kept.numel()} tokens fill no window and are dropped")
    return Batch((), {"input_ids": kept}), notes


def is_encoder(model: LoadedModel) -> bool:
    """Whether a model of Hugging Face does not generate text, so that it reads whole documents and no windows of running text."""
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
        seq_len: tokens at most; None means the model's positions, at most 512.
        num_samples: the number of documents to stop at; None takes all.
        batch_size: documents of a batch; None means 8.
        only: a field and its value; other lines of the JSONL are left out.
        field: of the JSONL, that holds the text; None looks for one.

    Raises:
        DataError: if the file is not text, or the tokenizer cannot be loaded.
        UsageError: if the model has fewer than `seq_len` positions.
    """
    documents = read_documents(path, source, only=only, field=field, by_line=True)[:num_samples]
    length, size = _window_length(model, seq_len), batch_size or _BATCH
    assert model.tokenizer is not None
    tokenizer = _load_tokenizer(model.tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token  # masked, so any token will do
    known, batches, full = accepted(model.module), [], list[str]()  # only what fills the window may have been cut
    for start in range(0, len(documents), size):
        some = documents[start : start + size]
        made = tokenizer(some, truncation=True, max_length=length, padding=True, return_tensors="pt")
        batches.append(Batch((), {name: made[name] for name in _ENCODED if name in made and name in known}))
        full += some if made["input_ids"].shape[1] >= length else []
    cut = sum(len(ids) > length for ids in tokenizer(full, truncation=False, verbose=False)["input_ids"]) if full else 0
    notes = ["one document is one sample, with its special tokens, padded to the longest of its batch"]
    return batches, notes + ([f"{cut} documents are cut to {length} tokens"] if cut else [])


def read_documents(
    path: Path, source: str, *, only: tuple[str, str] | None = None, field: str | None = None, by_line: bool = False
) -> list[str]:
    """The documents of a JSONL file, or the whole of a text file as one document; of its lines, `by_line`.

    The text is in `field`, or in "text", or in the only field that holds text.

    Raises:
        DataError: if the file is neither, a line is damaged, or nothing is left to read.
    """
    with open_file(path) as file:
        content = file.read(TEXT_BYTES + 1)
    if len(content) > TEXT_BYTES:
        raise DataError(f"{source} has more than {TEXT_BYTES:,} bytes of text, and all of it is read: cut out a part")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is neither a file of tensors nor UTF-8 text (byte {error.start}): give one of these") from error
    if "\x00" in text:
        raise DataError(f"{source} is neither a file of tensors nor text: it holds zero bytes")
    if not _is_jsonl(text):
        if only is not None:
            raise DataError(f"{source} selects lines by '{only[0]}', but the file is plain text: leave out '?{only[0]}={only[1]}'")
        if field is not None:
            raise DataError(f"{source} is plain text and has no field '{field}': leave --text-field out")
        documents = text.splitlines() if by_line else [text]
    else:
        documents = _jsonl_documents(text, source, only, field)
    documents = [document for document in documents if document.strip()]
    if not documents:
        raise DataError(f"{source} holds no text: give at least one document")
    return documents


def _is_jsonl(text: str) -> bool:
    first = next((line for line in text.split("\n") if line.strip()), "")
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _jsonl_documents(text: str, source: str, only: tuple[str, str] | None, field: str | None) -> list[str]:
    records = list(_records(text, source))
    if only is not None:
        records = _selected(records, source, only)
    key = field or _text_key(records[0][1], source)
    documents = []
    for number, record in records:
        if not isinstance(record.get(key), str):
            raise DataError(f'{source}, line {number}: no text under "{key}"; every line must have it')
        if not encodes(record[key]):
            raise DataError(f"{source}, line {number}: the text holds half of a surrogate pair; write whole characters")
        documents.append(record[key])
    return documents


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


def _selected(records: Sequence[tuple[int, dict[str, Any]]], source: str, only: tuple[str, str]) -> list[tuple[int, dict[str, Any]]]:
    field, value = only
    chosen = [(number, record) for number, record in records if str(record.get(field)) == value]
    if not chosen:
        found = list(dict.fromkeys(str(record[field]) for _, record in records if field in record))
        known = f"its values are {', '.join(found[:5])}" if found else f"the fields are {', '.join(records[0][1])}"
        raise DataError(f"{source}: no line has {field}={value}; {known}")
    return chosen


def _text_key(record: dict[str, Any], source: str) -> str:
    strings = [key for key, value in record.items() if isinstance(value, str)]
    if "text" in strings:
        return "text"
    if len(strings) != 1:
        keys = f"the text fields are {', '.join(strings)}" if strings else "no field holds text"
        raise DataError(f"{source}: {keys}; choose one with --text-field")
    return strings[0]


def _load_tokenizer(directory: Path) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise DataError(f"reading text needs the extra 'hf': {install('hf')}, or give token ids as a .pt file") from error
    try:
        return AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the directory decides what goes wrong in transformers
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"the tokenizer in {directory} cannot be loaded ({reason}): give token ids as a .pt file") from error


def _tokens(documents: Sequence[str], tokenizer: Any, enough: int | None) -> tuple[list[int], int]:
    """The tokens of all documents, or of the first ones until there are `enough`; and the number of documents used."""
    start = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    tokens: list[int] = []
    used = 0
    remaining = iter(documents)
    while (enough is None or len(tokens) < enough) and (some := list(islice(remaining, _DOCUMENTS_AT_ONCE))):
        for ids in tokenizer(some, add_special_tokens=False, verbose=False)["input_ids"]:
            if enough is not None and len(tokens) >= enough:
                break
            tokens += [*start, *ids]
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
