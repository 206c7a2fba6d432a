import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpq.data.dataset import Data
from mpq.errors import DataError, UsageError
from mpq.models.inputs.load_data import load_data
from mpq.models.sources.loaded import LoadedModel

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

WORDS = ["<s>", "a", "b", "c", "d"]
BOS = 0


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)

    def forward(self, input_ids: Tensor) -> Tensor:
        logits: Tensor = self.embedding(input_ids) @ self.embedding.weight.T
        return logits


def save_tokenizer(folder: Path, *, bos: bool) -> Path:
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="a"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, **({"bos_token": "<s>"} if bos else {}))
    fast.save_pretrained(str(folder))
    return folder


def model_with(tokenizer: Path | None, **config: Any) -> LoadedModel:
    return LoadedModel(Model(), "hf", "0", config={"vocab_size": 5, **config}, tokenizer=tokenizer)


@pytest.fixture(name="model")
def model_with_bos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    monkeypatch.chdir(tmp_path)
    return model_with(save_tokenizer(tmp_path / "tokenizer", bos=True), max_position_embeddings=4)


def write_lines(*records: object) -> None:
    Path("text.jsonl").write_text("\n".join(json.dumps(record) for record in records))


def ids(data: Data) -> list[list[int]]:
    rows: list[list[int]] = torch.cat([batch.kwargs["input_ids"] for batch in data.batches]).tolist()
    return rows


def test_documents_start_with_bos_and_are_cut_into_windows_of_the_models_positions(model: LoadedModel) -> None:
    write_lines({"text": "a b c"}, {"text": "d d"}, {"text": "c"})
    data = load_data("text.jsonl", model=model)
    assert ids(data) == [[BOS, 1, 2, 3], [BOS, 4, 4, BOS]]
    notes = "3 documents, each starting with BOS; the last 1 tokens do not fill a window and are dropped"
    assert data.description == f"2 windows of input_ids [4]; {notes}"
    assert data.ordered


def test_a_text_file_is_one_document(model: LoadedModel) -> None:
    Path("text.txt").write_text("a b c\n\nd a b\n")
    assert ids(load_data("text.txt", model=model, seq_len=3)) == [[BOS, 1, 2], [3, 4, 1]]


def test_a_tokenizer_without_bos_adds_none(model: LoadedModel, tmp_path: Path) -> None:
    write_lines({"text": "a b"}, {"text": "c d"})
    data = load_data("text.jsonl", model=model_with(save_tokenizer(tmp_path / "plain", bos=False), n_positions=4))
    assert ids(data) == [[1, 2, 3, 4]]
    assert data.description == "1 window of input_ids [4]; 2 documents, without BOS, because the tokenizer has none"


def test_num_samples_are_windows_spread_over_the_text(model: LoadedModel) -> None:
    write_lines(*[{"text": "a b c d"}] * 40)
    data = load_data("text.jsonl", model=model, num_samples=2)
    assert ids(data) == [[BOS, 1, 2, 3], [BOS, 1, 2, 3]]  # windows 0 and 30 of 50
    assert data.description == "2 of 50 windows of input_ids [4], spread evenly over all; 40 documents, each starting with BOS"
    first = load_data("text.jsonl", model=model, num_samples=2, spread=False)
    assert ids(first) == [[BOS, 1, 2, 3], [4, BOS, 1, 2]]
    assert first.description == "2 windows of input_ids [4]; 2 documents, each starting with BOS"


def test_a_long_text_is_not_read_whole(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpq.models.inputs.text._READ", 1)
    monkeypatch.setattr("mpq.models.inputs.text._PER_TOKEN", 1)
    write_lines({"text": "a b c"}, *[{"text": "d d d"}] * 3, {"text": "b b b"}, {"other": 1}, {"text": "c c c"})
    data = load_data("text.jsonl", model=model, num_samples=2)
    assert ids(data) == [[BOS, 1, 2, 3], [BOS, 2, 2, 2]]  # documents 0 and 4
    assert (
        data.description == "2 windows of input_ids [4]; 2 of 7 documents, spread evenly over the file; 2 documents, each starting with BOS"
    )


def test_the_default_window_is_at_most_512_tokens(model: LoadedModel) -> None:
    Path("text.txt").write_text("a " * 600)
    data = load_data("text.txt", model=model_with(model.tokenizer, max_position_embeddings=2048))
    assert data.batches[0].kwargs["input_ids"].shape == (1, 512)


def test_lines_are_selected_by_a_field(model: LoadedModel) -> None:
    write_lines({"split": "train", "text": "a a a"}, {"split": "test", "text": "b b b"})
    assert ids(load_data("text.jsonl?split=test", model=model)) == [[BOS, 2, 2, 2]]
    with pytest.raises(DataError, match=r"^text.jsonl\?split=dev: no line has split=dev; its values are train, test$"):
        load_data("text.jsonl?split=dev", model=model)
    with pytest.raises(DataError, match=r"^text.jsonl\?part=dev: no line has part=dev; the fields are split, text$"):
        load_data("text.jsonl?part=dev", model=model)


def test_a_single_text_field_of_another_name_is_the_text(model: LoadedModel) -> None:
    write_lines({"id": 3, "story": "a b c"})
    assert ids(load_data("text.jsonl", model=model)) == [[BOS, 1, 2, 3]]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"a": "x", "b": "y"}', "text.jsonl: the text fields are a, b; choose one with --text-field"),
        ('{"a": "x"}\n{"a": 1}', 'text.jsonl, line 2: "a" holds 1, which is not text; every line needs text there'),
        ('{"a": "x"}\n{}', 'text.jsonl, line 2: no text under "a"; every line needs it'),
        ('{"text": " "}', "text.jsonl holds no text: give at least one document"),
        ('{"text": "a"}', "text.jsonl holds 2 tokens, fewer than one window of 4: give more text or a smaller --seq-len"),
    ],
)
def test_lines_without_text_are_refused(model: LoadedModel, lines: str, message: str) -> None:
    Path("text.jsonl").write_text(lines)
    with pytest.raises(DataError) as caught:
        load_data("text.jsonl", model=model)
    assert str(caught.value) == message


def test_a_damaged_line_is_named(model: LoadedModel) -> None:
    Path("text.jsonl").write_text('{"text": "x"}\n{"text": "y\n')
    with pytest.raises(DataError, match=r"^text.jsonl, line 2: not JSON \(.*\); write one object per line$"):
        load_data("text.jsonl", model=model)


def test_text_for_a_model_without_tokenizer_is_refused(model: LoadedModel) -> None:
    Path("text.txt").write_text("a b c")
    message = r"^text.txt is text, and the model has no tokenizer: give tensors, for a language model token ids \[N, T\], as .pt or .npy$"
    with pytest.raises(DataError, match=message):
        load_data("text.txt", model=model_with(None))


def test_lengths_out_of_range_are_refused(model: LoadedModel) -> None:
    Path("text.txt").write_text("a b c d a b c d")
    with pytest.raises(UsageError, match=r"^--seq-len 8 is longer than the model's 4 positions: give 4 or less$"):
        load_data("text.txt", model=model, seq_len=8)
    with pytest.raises(UsageError, match=r"^--seq-len 1 is too short: give 2 or more$"):
        load_data("text.txt", model=model, seq_len=1)
    with pytest.raises(UsageError, match=r"^--num-samples 0 is not a number of samples: give 1 or more$"):
        load_data("text.txt", model=model, num_samples=0)
    with pytest.raises(DataError, match=r"^text.txt\?a=b selects lines by 'a', but the file is plain text: leave out '\?a=b'$"):
        load_data("text.txt?a=b", model=model)


def test_half_of_a_surrogate_pair_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "a b c d"}\n{"text": "a \\ud83d b"}\n')
    with pytest.raises(DataError, match="line 2: the text contains half of a surrogate pair; write whole characters"):
        load_data(str(tmp_path / "t.jsonl"), model=model_with(save_tokenizer(tmp_path, bos=False)), seq_len=2)


def test_a_chat_is_rendered_by_the_template_and_starts_with_bos_once(model: LoadedModel) -> None:
    assert model.tokenizer is not None
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(model.tokenizer))
    tokenizer.chat_template = "{{ bos_token }} {% for message in messages %}{{ message.content }} {% endfor %}"
    tokenizer.save_pretrained(str(model.tokenizer))
    turns = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}]
    write_lines({"messages": turns}, {"messages": turns[::-1]})
    data = load_data("text.jsonl", model=model)
    assert ids(data) == [[0, 1, 2, 3], [0, 3, 1, 2]]
    assert "messages: turns formatted with the tokenizer's chat template; 2 documents, each starting with BOS" in data.description


def test_tables_and_folders_of_tables_are_read_like_jsonl(model: LoadedModel, tmp_path: Path) -> None:
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    rows = pyarrow.Table.from_pylist([{"prompt": "a", "response": "b c"}, {"prompt": "d", "response": "d"}])
    (tmp_path / "set").mkdir()
    for name in ("rows.parquet", "set/train-00000-of-00001.parquet", "set/test-00000-of-00001.parquet"):
        parquet.write_table(rows, tmp_path / name)
    for source in ("rows.parquet", "set?split=train"):
        data = load_data(source, model=model)
        assert ids(data) == [[0, 1, 2, 3]]
        assert "no chat template" in data.description
    assert ids(load_data("rows.parquet?prompt=d", model=model_with(model.tokenizer, max_position_embeddings=3))) == [[0, 4, 4]]
    with pytest.raises(DataError, match="holds the splits 'test', 'train': choose one"):
        load_data("set", model=model)


def test_reading_stops_where_there_are_enough_windows(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lines(*[{"text": "a b c"}] * 200, {"other": 1})
    assert len(ids(load_data("text.jsonl", model=model, num_samples=2, spread=False))) == 2
    with pytest.raises(DataError, match="line 201"):
        load_data("text.jsonl", model=model)
