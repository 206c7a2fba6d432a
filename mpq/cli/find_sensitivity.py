"""Finds the sensitivity file that a plan or an artifact was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpq.cli.console import warn
from mpq.errors import MismatchError, MpqError

if TYPE_CHECKING:
    from mpq.records.artifact import ArtifactHeader
    from mpq.records.plan import Plan
    from mpq.records.sensitivity import Sensitivity

_SHOWN = 12  # digits of a hash


@dataclass(frozen=True)
class Source:
    """What a file says about the analysis that it comes from.

    Args:
        file: the plan or artifact.
        model: sha256 of its model.
        layers: names of its layers.
        quantizer: that the analysis used.
        data: sha256 of the analysis's data; None if the file does not say.
        metric: of the analysis; None if the file does not say.
        analysis: name and sha256 of the analysis; empty for artifacts and older plans.
    """

    file: Path
    model: str | None
    layers: frozenset[str]
    quantizer: str
    data: str | None = None
    metric: str | None = None
    analysis: Mapping[str, Any] = field(default_factory=dict)

    def fits(self, table: Sensitivity) -> bool:
        """Whether a table was made for this model and these layers, with the same settings as far as the file says."""
        header = table.header
        return (
            self.fits_model(table)
            and self.quantizer == header.settings["quantizer"]
            and self.data in (None, header.data.get("sha256"))
            and self.metric in (None, table.metric)
        )

    def fits_model(self, table: Sensitivity) -> bool:
        """Whether a table was made for this model and these layers."""
        return table.header.model.get("sha256") == self.model and {layer.name for layer in table.layers} == self.layers

    @property
    def missing(self) -> str:
        """The message for a missing analysis, with the remedy."""
        if not self.analysis:
            return f"no sensitivity file in the folder of {self.file.name} matches it: name one with --sensitivity FILE"
        named = f"{self.analysis.get('path') or 'an analysis in memory'}, sha256 of its first line {self.analysis['sha256'][:_SHOWN]}…"
        return f"the analysis of {self.file.name} is not in its folder ({named}): put it back, or name another with --sensitivity FILE"


def source_of_plan(file: Path, plan: Plan) -> Source:
    """What a plan says about its analysis."""
    metric, data = plan.evidence.get("metric"), plan.data.get("sha256")
    return Source(file, plan.model.get("sha256"), frozenset(plan.layers), plan.quantizer, data, metric, plan.analysis)


def source_of_artifact(file: Path, header: ArtifactHeader) -> Source:
    """What an artifact says about its analysis."""
    return Source(file, header.model.get("sha256"), frozenset(header.schemes), header.quantizer)


def table_beside(source: Source, *, given: Path | None = None) -> Sensitivity | None:
    """The analysis that a file names, or the only one in its folder that matches; or `given`, if it matches. None if there is none.

    Raises:
        MismatchError: if `given` does not match, or if several analyses match a file that names none.
    """
    from mpq.records.sensitivity import read_sensitivity

    if given is not None:
        return _checked(source, read_sensitivity(given), given)
    return _named(source) if source.analysis else _only(source)


def analysis_of_plan(file: Path, plan: Plan, *, given: Path | None = None) -> Sensitivity:
    """The analysis that a plan comes from, or `given`, if it matches.

    Raises:
        MismatchError: if it is not found, or does not match.
    """
    source = source_of_plan(file, plan)
    table = table_beside(source, given=given)
    if table is None:
        raise MismatchError(source.missing)
    return table


def _checked(source: Source, table: Sensitivity, path: Path) -> Sensitivity:
    """The table that the user chose; refused if its metric differs."""
    if not source.fits_model(table):
        raise MismatchError(
            f"{path} was made for another model or other layers than {source.file.name}: name the sensitivity file it came from"
        )
    if source.metric not in (None, table.metric):
        raise MismatchError(f"{path} measures {table.metric}, and {source.file.name} was searched with {source.metric}: name its analysis")
    if source.analysis and table.sha256 != source.analysis["sha256"]:
        warn(f"{path} is not the analysis that {source.file.name} names ({source.analysis.get('path')}): their values may differ")
    return table


def _named(source: Source) -> Sensitivity | None:
    """The analysis with the hash that the plan names, under any file name, in the plan's folder or the working directory."""
    from mpq.records.sensitivity import first_line_sha256, read_sensitivity

    folders = dict.fromkeys([source.file.resolve().parent, Path.cwd()])
    files = [path for folder in folders for path in sorted(folder.glob("*.sensitivity.jsonl")) if path.is_file()]
    same = [path for path in files if first_line_sha256(path) == source.analysis["sha256"]]
    best = min(same, key=lambda path: path.name != source.analysis.get("path"), default=None)
    return None if best is None else _checked(source, read_sensitivity(best), best)


def _only(source: Source) -> Sensitivity | None:
    from mpq.records.sensitivity import read_sensitivity

    fitting = []
    for path in sorted(source.file.resolve().parent.glob("*.sensitivity.jsonl")):
        try:
            table = read_sensitivity(path)
        except MpqError as error:
            warn(f"skipped {path.name}: {error}")
            continue
        if source.fits(table):
            fitting.append(table)
    if len(fitting) > 1:
        names = ", ".join(table.path.name for table in fitting if table.path)
        raise MismatchError(f"{len(fitting)} sensitivity files fit {source.file.name} ({names}): choose one with --sensitivity FILE")
    return fitting[0] if fitting else None
