from pathlib import Path
from typing import Any

import pytest

from mpq.budget import Budget
from mpq.export.source import Source
from mpq.export.weights.huggingface.card import Card, card_text, metadata, table
from mpq.records.artifact import ArtifactHeader
from mpq.records.plan import Plan
from tests.small import REST, linear, schemes

hub: Any = pytest.importorskip("huggingface_hub")

INT4, INT8 = schemes("int4", "int8")
LAYERS = (linear("a.q|x", 4, 32), linear("b", 2, 64))
EVALUATION = {
    "samples": 8,
    "source": "/home/me/test.pt",
    "figures": [{"name": "kl_divergence", "quantized": 0.5, "stderr": 0.125, "reference": None}],
}


def card(architecture: str = "LlamaForCausalLM", **changes: Any) -> Card:
    taken = {"a.q|x": INT4, "b": INT8}
    config = {"architecture": architecture, "dtype": "float32", "tensor_dtypes": {}}
    header = ArtifactHeader({"sha256": "a" * 64, "kind": "hf"}, "gptq", LAYERS, taken, {}, config, ("tuning",))
    matrices = {layer.name: layer.matrix for layer in LAYERS}
    source = Source(Path("model.mpq.safetensors"), header.model, taken, matrices, 1000, header, stored=taken)
    plan = Plan(header.model, Budget("5bits", "layers"), "gptq", taken, matrices, 1024, REST, data={"source": "../text.jsonl"})
    finalist = {"name": "exact", "effective_bits": 6.0, "predicted": 0.1, "calibration": 0.2, "calibration_stderr": 0.01}
    evidence = {
        "assignment": plan.assignment,
        "metric": "kl_divergence",
        "measured": {"held_out": 0.25, "held_out_stderr": 0.5, "samples": {"held_out": 6}},
        "finalists": [{**finalist, "held_out": 0.25, "held_out_stderr": 0.5}],
        "decision": "exact: the least <b>error</b>",
    }
    plan = Plan(**{**vars(plan), "evidence": evidence})
    return Card(**{"title": "llama-mpq", "source": source, "plan": plan, "base": "org/llama", **changes})


def read_by_the_hub(made: Card) -> Any:
    return hub.ModelCard(card_text(made)).data


def test_the_hubs_own_parser_reads_the_head() -> None:
    data = read_by_the_hub(card(original={"license": "mit", "language": ["en"]}, evaluation=EVALUATION))
    assert (data.base_model, data.base_model_relation, data.license, data.language) == ("org/llama", "quantized", "mit", ["en"])
    assert (data.library_name, data.pipeline_tag, data.model_name) == ("transformers", "text-generation", "llama-mpq")
    found = [(each.dataset_name, each.metric_type, each.metric_value, each.metric_args) for each in data.eval_results]
    assert found == [
        ("text.jsonl, 6 held-out samples", "kl_divergence", 0.25, {"stderr": 0.5}),
        ("test.pt, 8 samples", "kl_divergence", 0.5, {"stderr": 0.125}),
    ]


def test_a_card_without_plan_and_evaluation_claims_nothing() -> None:
    made = card(plan=None, base=None)
    assert "model-index" not in metadata(made)
    assert "base_model" not in metadata(made)
    assert read_by_the_hub(made).eval_results is None
    assert "## Error\n\nNothing was measured." in card_text(made)


def test_sizes_and_layers_are_those_of_the_artifact() -> None:
    text = card_text(card())
    assert "| their weights | 256 |" in text
    assert "| bytes of the original weights | 1,184 |\n| times smaller | 1.18 |" in text
    bytes_of = [INT4.stored_bits((4, 32)) // 8, INT8.stored_bits((2, 64)) // 8]
    assert f"| their bytes | {sum(bytes_of)} |" in text
    assert rf"| `a.q\|x` | 4 x 32 | int4 | {8 * bytes_of[0] / 128:.3f} | {bytes_of[0]} |" in text
    assert f"All other tensors are stored as they were: {1000 - sum(bytes_of):,} bytes, the header included." in text


def test_errors_stand_with_their_standard_errors_and_a_caution() -> None:
    text = card_text(card(evaluation=EVALUATION))
    assert "| exact | 6.000 | 0.1 | 0.2 ± 0.01 | 0.25 ± 0.5 |" in text
    assert "The held-out samples helped to choose among these plans" in text
    assert "these values are from before" in text
    assert "Chosen: exact: the least &lt;b>error&lt;/b>." in text
    assert "On 8 samples of `test.pt`, measured with `mpq eval`." in text
    assert "| kl_divergence | - | 0.5 | 0.125 |" in text


@pytest.mark.parametrize(
    ("architecture", "task", "auto_class"),
    [
        ("LlamaForCausalLM", "text-generation", "AutoModelForCausalLM"),
        ("BertModel", "feature-extraction", "AutoModel"),
        ("ViTForImageClassification", "image-classification", "AutoModelForImageClassification"),
    ],
)
def test_the_task_and_the_class_follow_from_the_architecture(architecture: str, task: str, auto_class: str) -> None:
    made = card(architecture)
    assert (made.task, made.auto_class) == (task, auto_class)
    assert f"from transformers import {auto_class}\n" in card_text(made)


def test_the_task_of_the_original_card_wins() -> None:
    assert card(original={"pipeline_tag": "sentence-similarity"}).task == "sentence-similarity"


def test_a_table_has_a_line_for_each_row() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
