import json
from pathlib import Path
from typing import Any

import pytest
import torch

import mpq
from mpq.data.dataset import Batch
from mpq.errors import UsageError
from mpq.export.run import export
from mpq.tensors.packed import PackedTensor
from tests.export.artifacts import by_name, make, save_llama, tokens

lm_eval: Any = pytest.importorskip("lm_eval")
registry: Any = pytest.importorskip("lm_eval.api.registry")
tokenizers: Any = pytest.importorskip("tokenizers")
transformers: Any = pytest.importorskip("transformers")

TASK = """\
task: copy
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_choice: ["w1", "w2", "w3"]
doc_to_target: label
metric_list: [{metric: acc}]
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of a small Llama whose tokenizer knows the words w0, w1, ..."""
    folder = tmp_path_factory.mktemp("lm_eval")
    model = save_llama(folder / "llama")
    words = {"<unk>": 0, **{f"w{number}": number for number in range(1, 100)}}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", pad_token="<unk>", eos_token="<unk>").save_pretrained(
        model
    )
    return make(model, Batch((), {"input_ids": tokens()}), by_name({}, "int4-g32"), folder)[1]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    import yaml

    folder = tmp_path_factory.mktemp("task")
    rows = [{"text": f"w{number} w{number + 1}", "label": number % 3} for number in range(4, 16)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found: dict[str, Any] = yaml.safe_load(TASK.replace("FILE", str(folder / "test.jsonl")))
    return found


def model(pretrained: Any, **options: Any) -> Any:
    return registry.get_model("mpq")(pretrained=str(pretrained), device="cpu", **options)


def test_an_exported_folder_is_evaluated_packed_on_a_task(artifact: Path, task: dict[str, Any]) -> None:
    folder = export(artifact, "huggingface").path
    packed = model(folder)
    assert isinstance(packed.model.lm_head.weight, PackedTensor)
    found = lm_eval.simple_evaluate(model=packed, tasks=[task], bootstrap_iters=0)["results"]["copy"]
    plain = registry.get_model("hf")(pretrained=mpq.load(artifact), tokenizer=str(folder), device="cpu")
    expected = lm_eval.simple_evaluate(model=plain, tasks=[task], bootstrap_iters=0)["results"]["copy"]
    assert found["acc,none"] == expected["acc,none"]
    assert found["sample_len"] == 12


def test_an_artifact_takes_the_tokenizer_that_is_named(artifact: Path) -> None:
    with pytest.raises(UsageError, match="holds no tokenizer: add tokenizer=FOLDER"):
        model(artifact)
    found = model(artifact, tokenizer=str(artifact.parent / "llama"))
    with torch.no_grad():
        assert torch.equal(found.model(tokens()).logits, mpq.load(artifact, packed=True)(tokens()).logits)
