"""Finds the sensitivity file that belongs to a plan or an artifact."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpq.cli.console import warn
from mpq.errors import MismatchError, MpqError

if TYPE_CHECKING:
    from mpq.records.sensitivity import Sensitivity


def table_beside(file: Path, model: Mapping[str, Any], *, layers: Collection[str], given: Path | None = None) -> Sensitivity | None:
    """The one table in the file's folder that was made for this model and these layers, or the given one; None if there is none.

    Raises:
        MismatchError: if the given one was made for another model or other layers.
    """
    from mpq.records.sensitivity import read_sensitivity

    if given is not None:
        table = read_sensitivity(given)
        if not _fits(table, model, layers):
            raise MismatchError(
                f"{given} was made for another model or other layers than {file.name}: name the sensitivity file it came from"
            )
        return table
    fitting = []
    for path in sorted(file.resolve().parent.glob("*.sensitivity.jsonl")):
        try:
            table = read_sensitivity(path)
        except MpqError as error:
            warn(f"passed over {path.name}: {error}")
            continue
        if _fits(table, model, layers):
            fitting.append(table)
    if len(fitting) > 1:
        names = [table.path.name for table in fitting if table.path]
        warn(f"{len(fitting)} sensitivity files fit ({', '.join(names)}): taking {names[0]}; --sensitivity names another")
    return fitting[0] if fitting else None


def _fits(table: Sensitivity, model: Mapping[str, Any], layers: Collection[str]) -> bool:
    return table.header.model.get("sha256") == model.get("sha256") and {layer.name for layer in table.layers} == set(layers)
