"""The vocabulary of a GGUF file, from a tokenizer.json.

BPE tokenizers with byte fallback (Llama 1 and 2, Mistral and similar models) are written as "llama": its scores order the merges, and ids
are in the order of merges, so minus the id works as a score. For byte-level tokenizers (Llama 3), the file would have to name a splitting
rule known to llama.cpp; for those, and without a tokenizer, the file says that it has no vocabulary.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


def add_vocabulary(writer: Any, folder: Path | None, size: int) -> list[str]:
    """Add `size` tokens to a GGUFWriter; returns notes on what is missing."""
    tokenizer = None if folder is None else _read(folder / "tokenizer.json")
    if tokenizer is None or not tokenizer["model"].get("byte_fallback") or tokenizer["model"].get("type") != "BPE":
        writer.add_tokenizer_model("no_vocab")
        why = "no tokenizer.json next to the original model" if tokenizer is None else "mpq does not support its kind of tokenizer"
        return [f"the file has no vocabulary ({why}): it computes logits from token ids only"]
    texts, types = _tokens(tokenizer, size)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_scores([-float(number) if kind == _NORMAL else 0.0 for number, kind in enumerate(types)])
    writer.add_token_types(types)
    names = {text: number for number, text in enumerate(texts)}
    for text, add in (("<s>", writer.add_bos_token_id), ("</s>", writer.add_eos_token_id), ("<unk>", writer.add_unk_token_id)):
        if text in names:
            add(names[text])
    return []


def _tokens(tokenizer: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Text and type of each token id."""
    texts = [f"[unused{number}]" for number in range(size)]
    types = [_UNUSED] * size
    for text, number in tokenizer["model"]["vocab"].items():
        texts[number] = text
        types[number] = _BYTE if _BYTE_TOKEN.fullmatch(text) else _NORMAL
    for added in tokenizer.get("added_tokens", ()):
        texts[added["id"]] = added["content"]
        types[added["id"]] = _CONTROL if added["special"] else _USER_DEFINED
    unknown = tokenizer["model"].get("unk_token")
    if unknown in texts:
        types[texts.index(unknown)] = _UNKNOWN
    return texts, types


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("model"), dict) else None
