"""What the model card of a Hugging Face folder needs in addition to the artifact: the plan, the report, and an evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mpq.cli.find_plan import plan_of
from mpq.errors import FormatError, UsageError

if TYPE_CHECKING:
    from mpq.export.base import Options

HUB = "huggingface"  # the target


def with_card(options: Options, artifact: Path, *, base_model: str | None, evaluation: Path | None) -> Options:
    """The options with the plan next to an artifact, its report if the analysis exists, and what the user adds to the card.

    Raises:
        UsageError: if the base model is not `org/name`.
        FormatError: if the evaluation is not what `mpq eval --json` prints.
    """
    from mpq.reading.documents import read_json
    from mpq.reading.validate import validated
    from mpq.records.evaluation import EvaluationFile

    if base_model is not None and (base_model.count("/") != 1 or not all(base_model.split("/"))):
        raise UsageError(f"--base-model {base_model} is not a model of the hub: write ORG/NAME")
    found = plan_of(artifact) if artifact.suffix != ".yaml" else None
    if found is not None:
        options = replace(options, plan=found[0], report=_report(found[0]))
    if evaluation is not None:
        document = read_json(
            evaluation, error=FormatError, absent="name what `mpq eval --json` printed", remedy="run `mpq eval --json > FILE` again"
        )
        validated(document, EvaluationFile)
        options = replace(options, evaluation=document.value)
    return replace(options, base_model=base_model)


def _report(plan: Path) -> str | None:
    """The report of a plan, without paths of this machine; None if its analysis is missing."""
    from mpq.cli.report import subject_of
    from mpq.export.weights.huggingface.target import without_paths
    from mpq.report.render import render

    subject = subject_of(plan, None)
    if subject.table is None or subject.plan is None:
        return None
    return render(replace(subject, plan=without_paths(subject.plan)))
