"""`mpq recover --reallocate`: the second half, after the artifact is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpq.cli.find_sensitivity import source_of_plan, table_beside
from mpq.cli.replaced import say_replaced
from mpq.errors import MismatchError
from mpq.files import write_text

if TYPE_CHECKING:
    from mpq.models.sources.loaded import LoadedModel
    from mpq.records.plan import Plan
    from mpq.records.sensitivity import Sensitivity
    from mpq.recovery.training.job import Line

SUFFIX = ".reallocated"


@dataclass(frozen=True)
class Files:
    """Where the results of a reallocation go.

    Args:
        plan: the new plan.
        artifact: trained under it.
    """

    plan: Path
    artifact: Path

    @classmethod
    def beside(cls, plan: Path, artifact: Path) -> Files:
        """Next to the plan and the artifact that were trained first."""
        name = artifact.name.removesuffix(".safetensors").removesuffix(".mpq").removesuffix(".recovered")
        return cls(plan.with_name(f"{plan.stem}{SUFFIX}{plan.suffix}"), artifact.with_name(f"{name}{SUFFIX}.mpq.safetensors"))


def note(journal: Path, lines: list[Line]) -> None:
    """Write the journal of a training."""
    write_text(journal, "".join(dumps(asdict(line)) + "\n" for line in lines))


def analysis_of(plan: Path, wanted: Plan) -> Sensitivity:
    """The analysis that a plan names.

    Raises:
        MismatchError: if it is not in the plan's folder.
    """
    source = source_of_plan(plan, wanted)
    table = table_beside(source)
    if table is None:
        raise MismatchError(f"--reallocate needs the candidates of the analysis, and {source.missing.partition(':')[0]}: put it back")
    return table


@dataclass(frozen=True)
class Again:
    """What a reallocation came to.

    Args:
        lines: for people.
        facts: for `--json`.
        path: the new artifact, if it is kept.
    """

    lines: list[str]
    facts: dict[str, Any]
    path: Path | None


def reallocated(files: Files, model: LoadedModel, plan: Plan, table: Sensitivity, artifact: Path, given: Mapping[str, Any]) -> Again:
    """Reallocate, and write the new plan if it is kept.

    Args:
        files: to write.
        model: unquantized.
        plan: the old one.
        table: its analysis.
        artifact: trained under it.
        given: how to train, as `mpq.reallocation.reallocate` takes it.
    """
    from mpq.reallocation import reallocate
    from mpq.records.plan import write_plan
    from mpq.records.recovery_lines import beside_artifact

    journal, folder = beside_artifact(files.artifact, ".recover.jsonl"), beside_artifact(files.artifact, ".recover")
    found = reallocate(model, plan, table, artifact, files.artifact, folder=folder, on_line=partial(note, journal), **given)
    facts: dict[str, Any] = {"correlation": found.correlation, "changed": list(found.changed), "decision": found.decision.to_dict()}
    trained = () if found.retrained is None else found.retrained.decisions
    lines = [found.line, *(made.line for made in trained), found.decision.line]
    if found.plan is not None:
        say_replaced(files.plan, found.plan)
        write_plan(found.plan, files.plan)
        lines.append(
            f"{files.plan} and {files.artifact}: {found.plan.size.file_bytes:,} bytes, with one line per evaluation in {journal.name}"
        )
        facts |= {"plan": str(files.plan), "output": str(files.artifact), "file_bytes": found.plan.size.file_bytes, "lines": str(journal)}
    if found.retrained is not None:
        found.retrained.finish()
    return Again(lines, facts, None if found.plan is None else files.artifact)
