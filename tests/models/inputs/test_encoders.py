"""Documents for encoders: whole, with their special tokens, padded, and the same figures however they are padded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mpq
from mpq.errors import DataError
from mpq.models.inputs.load_data import load_data
from mpq.models.sources.loaded import LoadedModel
from mpq.runtime.speed import tokens_per_second

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

WORDS = ["[PAD]", "[CLS]", "[SEP]", "a", "b", "c", "d"]


@pytest.fixture(name="tokenizer")
def saved_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="a"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words.post_processor = tokenizers.processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    fast.save_pretrained(str(tmp_path / "tokenizer"))
    return tmp_path / "tokenizer"


def bert(kind: str = "BertModel") -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 8}
    module: nn.Module = getattr(transformers, kind)(transformers.BertConfig(vocab_size=7, **sizes)).eval()
    return module


def encoder(tokenizer: Path) -> LoadedModel:
    return LoadedModel(bert(), "hf", "0", config={"vocab_size": 7, "max_position_embeddings": 8}, tokenizer=tokenizer)


def write(*documents: str, field: str = "text", **others: Any) -> None:
    Path("text.jsonl").write_text("\n".join(json.dumps({field: document, **others}) for document in documents))


def test_a_document_is_one_sample_with_its_special_tokens(tokenizer: Path) -> None:
    write("a b c", "d", "a b c d a b c d a b")
    data = load_data("text.jsonl", model=encoder(tokenizer))
    (batch,) = data.batches
    assert batch.kwargs["input_ids"].tolist() == [
        [1, 3, 4, 5, 2, 0, 0, 0],
        [1, 6, 2, 0, 0, 0, 0, 0],
        [1, 3, 4, 5, 6, 3, 4, 2],
    ]
    assert batch.mask is not None
    assert batch.mask.sum(1).tolist() == [5, 3, 8]
    assert data.samples == 3
    assert "one document is one sample, with its special tokens" in data.description
    assert "1 documents are cut to 8 tokens" in data.description


def test_lines_of_plain_text_are_documents_and_the_length_is_limited_as_asked(tokenizer: Path) -> None:
    Path("text.txt").write_text("a b c\n\nd\n")
    (batch,) = load_data("text.txt", model=encoder(tokenizer), seq_len=4).batches
    assert batch.kwargs["input_ids"].tolist() == [[1, 3, 4, 2], [1, 6, 2, 0]]


def test_num_samples_are_documents_spread_over_the_file(tokenizer: Path) -> None:
    write("a", "b", "c", "d", "a b", "c d")
    data = load_data("text.jsonl", model=encoder(tokenizer), num_samples=3)
    assert [batch.kwargs["input_ids"].tolist() for batch in data.batches] == [[[1, 3, 2], [1, 6, 2], [1, 4, 2]]]
    assert data.ranks == (0, 1, 2)
    assert "3 of 6 documents, spread evenly over the file" in data.description


def test_padding_changes_no_figure(tokenizer: Path) -> None:
    write(*("a b c d a b"[: 1 + 2 * (index % 6)] for index in range(16)))
    model = encoder(tokenizer)
    tables = [
        mpq.analyze(model, load_data("text.jsonl", model=model, batch_size=size), candidates=("4",), quantizer="rtn", method="measure")
        for size in (1, 8)
    ]
    assert tables[0].errors
    for pair, values in tables[0].errors.items():
        assert values == pytest.approx(tables[1].errors[pair], rel=1e-3, abs=1e-9)


def test_the_field_that_holds_the_text_is_chosen(tokenizer: Path) -> None:
    write("c d", field="body", title="a")
    model = encoder(tokenizer)
    with pytest.raises(DataError, match=r"the text fields are body, title; choose one with --text-field$"):
        load_data("text.jsonl", model=model)
    assert load_data("text.jsonl", model=model, text_field="title").batches[0].kwargs["input_ids"].tolist() == [[1, 3, 2]]
    with pytest.raises(DataError, match=r'line 1: no text under "none"; every line needs it$'):
        load_data("text.jsonl", model=model, text_field="none")


def test_a_pooler_whose_output_is_not_compared_is_not_searched(tokenizer: Path) -> None:
    write("a b c", "d", "a b", "c d")
    model = encoder(tokenizer)
    data = load_data("text.jsonl", model=model)
    for method in ("measure", "fisher"):
        table = mpq.analyze(model, data, candidates=("4",), quantizer="rtn", method=method)
        assert not [layer.name for layer in table.layers if "pooler" in layer.name]
        assert "no compared output depends on them, so left unquantized: pooler.dense" in table.header.notes
    asked = mpq.analyze(model, data, candidates=("4",), quantizer="rtn", method="measure", outputs=("pooler_output",))
    assert [layer.name for layer in asked.layers if "pooler" in layer.name] == ["pooler.dense"]


@pytest.mark.parametrize("kind", ["BertModel", "BertForSequenceClassification", "BertForMaskedLM", "T5EncoderModel"])
def test_no_decoding_is_timed_for_models_that_do_not_decode(kind: str) -> None:
    if kind.startswith("T5"):
        module = transformers.T5EncoderModel(
            transformers.T5Config(vocab_size=7, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
        ).eval()
    else:
        module = bert(kind)
    assert tokens_per_second(module, module, vocabulary=7, tokens=2, rounds=1) is None


def test_decoding_is_timed_for_a_causal_model() -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32}
    module = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=7, **sizes)).eval()
    found = tokens_per_second(module, module, vocabulary=7, tokens=2, rounds=1)
    assert found is not None
    assert found.reference > 0
