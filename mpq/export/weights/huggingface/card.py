"""The model card: metadata for programs, and a page for people. Every value comes from the artifact, its plan, or an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import yaml

from mpq.distribution import install
from mpq.export.source import Source
from mpq.export.weights.huggingface.results import Result, evaluated, held_out, model_index
from mpq.records.plan import Plan
from mpq.shown import bits_cell, bits_text, markdown, markdown_code

_TASKS = {
    "ForCausalLM": ("text-generation", "AutoModelForCausalLM"),
    "ForMaskedLM": ("fill-mask", "AutoModelForMaskedLM"),
    "ForSequenceClassification": ("text-classification", "AutoModelForSequenceClassification"),
    "ForTokenClassification": ("token-classification", "AutoModelForTokenClassification"),
    "ForQuestionAnswering": ("question-answering", "AutoModelForQuestionAnswering"),
    "ForImageClassification": ("image-classification", "AutoModelForImageClassification"),
    "ForConditionalGeneration": ("text2text-generation", "AutoModelForSeq2SeqLM"),
}
_OTHER = ("feature-extraction", "AutoModel")


@dataclass(frozen=True)
class Card:
    """The contents of a card.

    Args:
        title: name of the model.
        source: the artifact.
        plan: its plan, if available.
        base: `org/name` of the original model on the hub, if known.
        original: license, language and task of the original.
        evaluation: the output of `mpq eval --json` for the artifact, if given.
        has_report: whether there is a report.html.
    """

    title: str
    source: Source
    plan: Plan | None = None
    base: str | None = None
    original: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] | None = None
    has_report: bool = False

    @property
    def task(self) -> str:
        """The hub's name for the model's task."""
        return str(self.original.get("pipeline_tag") or self._kind[0])

    @property
    def auto_class(self) -> str:
        """The Transformers class that loads it."""
        return self._kind[1]

    @property
    def results(self) -> list[Result]:
        """Its measured values: on held-out samples, and those of the evaluation."""
        return [*([] if self.plan is None else held_out(self.plan)), *([] if self.evaluation is None else evaluated(self.evaluation))]

    @property
    def _kind(self) -> tuple[str, str]:
        architecture = str(self.source.artifact.config.get("architecture"))
        return next((kind for ending, kind in _TASKS.items() if architecture.endswith(ending)), _OTHER)


def card_text(card: Card) -> str:
    """README.md."""
    head = yaml.safe_dump(metadata(card), sort_keys=False, allow_unicode=True, width=120)
    parts = [f"# {markdown(card.title)}", _summary(card), _use(card), _size(card), *_evidence(card), _layers(card), _made(card)]
    return f"---\n{head}---\n\n" + "\n\n".join(parts) + "\n"


def metadata(card: Card) -> dict[str, Any]:
    """The metadata of the card, for the hub."""
    found: dict[str, Any] = {} if card.base is None else {"base_model": card.base, "base_model_relation": "quantized"}
    found |= {key: value for key, value in card.original.items() if key != "pipeline_tag"}
    found |= {"library_name": "transformers", "pipeline_tag": card.task, "tags": ["mpq", "mixed-precision", "quantized"]}
    return found | ({"model-index": model_index(card.title, card.task, card.results)} if card.results else {})


def _summary(card: Card) -> str:
    base = markdown_code(card.base) if card.base else f"a {markdown_code(str(card.source.artifact.config['architecture']))}"
    budget = f", searched for a budget of {card.plan.budget}" if card.plan is not None and card.plan.budget is not None else ""
    return (
        f"The weights of {base} in mixed precision: each layer has the format that it needs{budget}. The weights stay packed in memory; "
        "nothing in this folder is code."
    )


def _use(card: Card) -> str:
    return f"""## Use

```bash
{install("hf")}
```

```python
import mpq  # lets Transformers load the packed weights
from transformers import {card.auto_class}

model = {card.auto_class}.from_pretrained("…")  # the name of this repository, or a folder with its files
```

Without mpq, Transformers does not find the weights and stops."""


def _size(card: Card) -> str:
    source = card.source
    weights = sum(rows * columns for rows, columns in source.matrices.values())
    layer_bytes = sum(scheme.stored_bits(source.held(name)) // 8 for name, scheme in source.stored.items())
    rows = [["quantized layers", f"{len(source.stored):,}"], ["their weights", f"{weights:,}"], ["their bytes", f"{layer_bytes:,}"]]
    rows += [["bits per weight, scales included", bits_text(8 * layer_bytes / weights)], ["bytes of the artifact", f"{source.bytes:,}"]]
    if card.plan is not None:
        before = card.plan.original_bytes + card.plan.rest.original_bytes
        rows += [["bytes of the original weights", f"{before:,}"], ["times smaller", f"{before / source.bytes:.2f}"]]
    return "## Size\n\n" + table(["", ""], rows)


def _evidence(card: Card) -> Iterator[str]:
    """The sections on errors, if known."""
    plan = card.plan
    if plan is not None and plan.evidence_is_current and plan.evidence.get("finalists"):
        yield _finalists(plan, recovered=bool(card.source.artifact.recovery))
    if card.evaluation is not None:
        yield _evaluation(card.evaluation)
    elif plan is None or not plan.evidence:
        yield "## Error\n\nNothing was measured."


def _evaluation(evaluation: Mapping[str, Any]) -> str:
    where = markdown_code(PurePath(str(evaluation["source"])).name)
    columns = ["", "original", "quantized", "standard error"]
    rows = [[markdown(result.name), *map(_number, (result.reference, result.value, result.stderr))] for result in evaluated(evaluation)]
    return f"## Evaluation\n\nOn {evaluation['samples']} samples of {where}, measured with `mpq eval`.\n\n{table(columns, rows)}"


def _finalists(plan: Plan, *, recovered: bool) -> str:
    metric = markdown_code(str(plan.evidence.get("metric")))
    after = " Recovery steps then improved the weights; these values are from before." if recovered else ""
    text = (
        f"{metric} between the original and the quantized model, mean ± standard error, for each plan that was compared. The held-out "
        f"samples helped to choose among these plans, so measure on your own data before you rely on a value.{after}"
    )
    columns = ["plan", "bits per weight", "predicted", "calibration", "held-out"]
    rows = [
        [
            str(row.get("name")),
            bits_cell(row.get("effective_bits", 0)),
            _number(row.get("predicted")),
            *(_with_error(row.get(side), row.get(f"{side}_stderr")) for side in ("calibration", "held_out")),
        ]
        for row in plan.evidence["finalists"]
    ]
    chosen = plan.evidence.get("decision")
    return f"## Error\n\n{text}\n\n{table(columns, rows)}" + (f"\n\nChosen: {markdown(str(chosen))}." if chosen else "")


def _layers(card: Card) -> str:
    source = card.source
    rows = []
    for layer in source.artifact.layers:
        scheme = source.stored[layer.name]
        stored = scheme.stored_bits(source.held(layer.name))
        shape = " x ".join(map(str, layer.shape))
        rows.append([markdown_code(layer.name), shape, str(scheme), f"{stored / layer.weights:.3f}", f"{stored // 8:,}"])
    others = f"\n\nAll other tensors are stored as they were: {source.bytes - sum_of(rows):,} bytes, the header included."
    inner = table(["layer", "shape", "format", "bits per weight", "bytes"], rows)
    return f"## Layers\n\n<details><summary>{len(rows):,} layers</summary>\n\n{inner}\n\n</details>{others}"


def sum_of(rows: Sequence[Sequence[str]]) -> int:
    """The sum of the last column."""
    return sum(int(row[-1].replace(",", "")) for row in rows)


def _made(card: Card) -> str:
    artifact, plan = card.source.artifact, card.plan
    rows = [["quantizer", artifact.quantizer], ["recovery", ", ".join(artifact.recovery) or "none"]]
    rows.append(["original, SHA-256 of its configuration and weights", markdown_code(str(artifact.model.get("sha256")))])
    if plan is not None and plan.data:
        rows.append(["calibration data", markdown_code(str(plan.data.get("source")))])
    links = ["`plan.yaml` holds the plan, which can be edited and applied again."] if plan is not None else []
    links += ["`report.html` shows what each layer costs."] if card.has_report else []
    return "## How it was made\n\nWith mpq.\n\n" + "\n\n".join([table(["", ""], rows), *([" ".join(links)] if links else [])])


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the cells must be safe in it."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else "-"


def _with_error(value: object, stderr: object) -> str:
    return f"{_number(value)} ± {stderr:.2g}" if isinstance(stderr, (int, float)) else _number(value)
