"""How the ranks of an analysis begin: rank 0 settles it and opens the journal, the others take over what it has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from mpq.analyze.resume import open_journal
from mpq.analyze.task import Prepared
from mpq.data.dataset import Data
from mpq.errors import MismatchError
from mpq.files import Journal, journal_line
from mpq.models.running.comparison import comparison_from
from mpq.models.running.ranks import Ranks
from mpq.models.sources.loaded import LoadedModel
from mpq.records.sensitivity import Sensitivity, read_sensitivity

Begun = tuple[Prepared, Sensitivity, Journal | None]


def begun(ranks: Ranks, model: LoadedModel, data: Data, path: Path | None, prepare: Callable[[], Prepared]) -> Begun:
    """The settled analysis, its table and its journal: the same in all ranks, except that only rank 0 has the journal.

    Args:
        ranks: the processes of the analysis.
        model: the model, as every rank has loaded it.
        data: all samples, as every rank has read them.
        path: the journal, in rank 0.
        prepare: settles the analysis, in rank 0.

    Raises:
        MismatchError: if a rank has another model or other data than rank 0, or `path` holds another analysis.
    """
    found: list[Begun] = []

    def first() -> bytes:
        prepared = prepare()
        found.append((prepared, *open_journal(prepared.header, path)))
        return journal_line(prepared.header.to_dict()) if path is None else path.read_bytes()

    told = ranks.from_first(first)
    return found[0] if found else _taken_over(told, model, data)


def _taken_over(told: bytes, model: LoadedModel, data: Data) -> Begun:
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "analysis.jsonl"
        copy.write_bytes(told)
        header = read_sensitivity(copy).header
        table, _ = open_journal(header, copy)
    for name, own, first in (("model", model.sha256, header.model["sha256"]), ("data", data.sha256, header.data["sha256"])):
        if own != first:
            raise MismatchError(f"this process has another {name} than the first one (sha256 {own[:12]}…, there {first[:12]}…)")
    split = data.split_as(header.data)
    return Prepared(header, split.calibration, split.first, comparison_from(header.settings)), table, None
