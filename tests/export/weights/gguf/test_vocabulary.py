import json
from pathlib import Path
from typing import Any

import pytest

from mpq.export.weights.gguf.vocabulary import add_vocabulary

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # as gguf.TokenType numbers them


class Writer:
    """Keeps what it is told, as a GGUFWriter is called."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return lambda value: self.told.update({name.removeprefix("add_"): value})


def added(folder: Path | None, size: int) -> tuple[dict[str, Any], list[str]]:
    writer = Writer()
    notes = add_vocabulary(writer, folder, size)
    return writer.told, notes


def tokenizer(folder: Path, **changes: Any) -> Path:
    model = {"type": "BPE", "byte_fallback": True, "unk_token": "<unk>", "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "<0x0A>": 3, "a": 4}}
    special = [{"id": 1, "content": "<s>", "special": True}, {"id": 5, "content": "[user]", "special": False}]
    (folder / "tokenizer.json").write_text(json.dumps({"model": model | changes, "added_tokens": special}))
    return folder


def test_each_token_has_its_text_type_and_score(tmp_path: Path) -> None:
    told, notes = added(tokenizer(tmp_path), 7)
    assert notes == []
    assert told == {
        "tokenizer_model": "llama",
        "tokenizer_pre": "default",
        "token_list": ["<unk>", "<s>", "</s>", "<0x0A>", "a", "[user]", "[unused6]"],
        "token_types": [UNKNOWN, CONTROL, NORMAL, BYTE, NORMAL, USER_DEFINED, UNUSED],
        "token_scores": [0.0, 0.0, -2.0, 0.0, -4.0, 0.0, 0.0],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unk_token_id": 0,
    }


def test_special_tokens_that_are_not_there_are_not_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "byte_fallback": True, "vocab": {"a": 0}}}))
    told, _ = added(tmp_path, 1)
    assert set(told) == {"tokenizer_model", "tokenizer_pre", "token_list", "token_types", "token_scores"}


@pytest.mark.parametrize("changes", [{"byte_fallback": False}, {"byte_fallback": None}, {"type": "Unigram"}])
def test_tokenizers_of_other_kinds_are_left_out(tmp_path: Path, changes: dict[str, Any]) -> None:
    told, notes = added(tokenizer(tmp_path, **changes), 7)
    assert told == {"tokenizer_model": "no_vocab"}
    why = "mpq does not support its kind of tokenizer"
    assert notes == [f"the file has no vocabulary ({why}): it computes logits from token ids only"]


@pytest.mark.parametrize("content", [None, "", "not json", "[]", "{}", '{"model": 3}'])
def test_a_tokenizer_that_cannot_be_read_counts_as_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    told, notes = added(tmp_path, 7)
    assert told == {"tokenizer_model": "no_vocab"}
    assert notes == ["the file has no vocabulary (no tokenizer.json next to the original model): it computes logits from token ids only"]


def test_without_a_folder_there_is_no_vocabulary() -> None:
    assert added(None, 7)[0] == {"tokenizer_model": "no_vocab"}
