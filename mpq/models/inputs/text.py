"""Text for language models: documents, their tokens, and windows of equal length; for encoders, one document is one sample.

Every document starts with the tokenizer's BOS, if it has one; all documents are concatenated and cut into windows of `seq_len` tokens, like
the calibration of GPTQ and its successors (Frantar et al. 2022). `documents.py` reads the documents.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from mpq.data.batch import Batch
from mpq.distribution import install
from mpq.errors import DataError, UsageError
from mpq.models.inputs.documents import read_documents, spread_documents
from mpq.models.running.forward import accepted
from mpq.models.sources.loaded import LoadedModel

DEFAULT_SEQ_LEN = 512
_POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "n_ctx")
_DOCUMENTS_AT_ONCE = 64
_BATCH = 8
_READ = 4_000_000  # characters, if windows are spread over a text: enough for small files to be read whole
_PER_TOKEN = 32  # at least this many characters for each token wanted
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
    spread: bool = False,
) -> tuple[Batch, list[str]]:
    """All windows of the text in `path` as one batch of "input_ids", and notes on how they were cut.

    Args:
        path: text or records (`documents.py`).
        source: how the user wrote it, for messages.
        model: gives the tokenizer and the number of positions.
        seq_len: tokens per window; None means the model's positions, at most 512.
        num_samples: cut only this many windows; None cuts all.
        only: a field and its value; other records are skipped.
        field: the field with the text; None looks for one.
        spread: cut all windows of a text of up to 4 million characters, and of a longer one those of documents spread evenly over it, so
            that `num_samples` of them can be chosen; else the first ones.

    Raises:
        DataError: if the model has no tokenizer, the file is not text, or the text is shorter than one window.
        UsageError: if the model has fewer than `seq_len` positions.
    """
    if model.tokenizer is None:
        next(read_documents(path, source, only=only, field=field))  # a file that is not text is refused as such
        raise DataError(
            f"{source} is text, and the model has no tokenizer: give tensors, for a language model token ids [N, T], as .pt or .npy"
        )
    length = _window_length(model, seq_len)
    tokenizer = _load_tokenizer(model.tokenizer)
    how: list[str] = []
    wanted = None if num_samples is None else num_samples * length
    reading: dict[str, Any] = {"tokenizer": tokenizer, "only": only, "field": field, "notes": how}
    documents: Iterable[str]
    if spread and wanted is not None:
        most, wanted = max(_READ, wanted * _PER_TOKEN), None
        documents = [text for _, text in sorted(spread_documents(path, source, enough=lambda _, read: read >= most, **reading))]
    else:
        documents = read_documents(path, source, **reading)
    tokens, used = _tokens(documents, tokenizer, wanted)
    count = len(tokens) // length if wanted is None else min(wanted, len(tokens)) // length
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
    spread: bool = False,
) -> tuple[list[Batch], list[str]]:
    """One sample for each document, or each line of plain text, with its special tokens, padded to the longest of its batch; and notes.

    Args:
        path: text or records (`documents.py`).
        source: how the user wrote it, for messages.
        model: gives the tokenizer and the number of positions.
        seq_len: maximum tokens; None means the model's positions, at most 512.
        num_samples: use only this many documents; None uses all.
        batch_size: documents per batch; None means 8.
        only: a field and its value; other records are skipped.
        field: the field with the text; None looks for one.
        spread: use documents spread evenly over the file, in the order in which they are chosen; else the first ones.

    Raises:
        DataError: if the file is not text, or the tokenizer cannot be loaded.
        UsageError: if the model has fewer than `seq_len` positions.
    """
    length, size = _window_length(model, seq_len), batch_size or _BATCH
    assert model.tokenizer is not None
    tokenizer = _load_tokenizer(model.tokenizer)
    how: list[str] = []
    reading: dict[str, Any] = {"tokenizer": tokenizer, "only": only, "field": field, "by_line": True, "notes": how}
    if spread and num_samples is not None:
        documents = [text for _, text in spread_documents(path, source, enough=lambda count, _: count >= num_samples, **reading)]
    else:
        documents = list(islice(read_documents(path, source, **reading), num_samples))
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
