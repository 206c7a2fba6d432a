"""Resume: an analysis continues in its own journal, even with additional samples, and refuses any other journal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpq.data.dataset import Data
from mpq.data.split_rule import SplitRule
from mpq.errors import MismatchError
from mpq.files import Journal, atomic_write, journal_line
from mpq.records.sensitivity import Sensitivity, read_sensitivity
from mpq.records.sensitivity_header import SensitivityHeader


def open_journal(header: SensitivityHeader, path: Path | None) -> tuple[Sensitivity, Journal | None]:
    """The table to continue, and the journal to append to; both are new if `path` does not exist.

    Values of layers and schemes that are no longer requested stay in the file but are not in the table.

    Raises:
        MismatchError: if `path` has an analysis of a different model, data or settings.
    """
    if path is None:
        return Sensitivity(header), None
    if not path.exists():
        return Sensitivity(header, path=path), Journal.create(path, header.to_dict())
    old = read_sensitivity(path)
    _refuse_other(old.header, header, path)
    journal = Journal(path)
    if old.header.to_dict() != header.to_dict():
        _replace_header(path, header)
    wanted = {(layer.name, scheme) for layer in header.layers for scheme in header.candidates[layer.name]}
    table = Sensitivity(header, {key: errors for key, errors in old.errors.items() if key in wanted}, path)
    table.products = {key: products for key, products in old.products.items() if key in wanted}
    table.rows = {key: rows for key, rows in old.rows.items() if key in wanted}
    table.scales = {key: scale for key, scale in old.scales.items() if key in wanted}
    table.finish, table.blend, table.notes, table.activations = old.finish, old.blend, old.notes, old.activations
    return table, journal


def parts_of(earlier: SensitivityHeader | None, data: Data) -> dict[str, Any]:
    """How samples were added to an analysis, for the `data` of its header; empty if none were added later.

    Args:
        earlier: the header of the analysis that may be resumed.
        data: all samples now. If they start with those of `earlier`, or have them spread among them, the others are a new part.
    """
    if earlier is None or "samples" not in earlier.data:
        return {}
    before, sha256 = sum(earlier.data["samples"].values()), earlier.data.get("sha256")
    if data.sha256 == sha256:
        return {name: earlier.data[name] for name in ("parts", "grown_from") if name in earlier.data}
    if data.samples <= before or (data.spread if earlier.data.get("spread") else data.first)(before).sha256 != sha256:
        return {}
    return {"parts": [*earlier.data.get("parts", [before]), data.samples - before], "grown_from": sha256}


def spread_of(earlier: SensitivityHeader | None, data: Data, parts: Mapping[str, Any]) -> bool:
    """Whether the samples, or those of the earliest part, are spread evenly over their source, for the `data` of a header.

    Args:
        earlier: the header of the analysis that may be resumed.
        data: all samples now.
        parts: their `parts_of`.
    """
    return bool(data.ranks or (parts and earlier is not None and earlier.data.get("spread")))


def split_of(earlier: SensitivityHeader | None, data: Data, parts: Mapping[str, Any]) -> dict[str, Any]:
    """How the samples are split, for the `data` of a header: as in the resumed analysis, unless the user chose.

    Args:
        earlier: the header of the analysis that may be resumed.
        data: all samples now.
        parts: their `parts_of`.
    """
    rule: SplitRule = data.splitting
    known = (data.sha256, parts.get("grown_from"))
    if earlier is None or rule.asked or earlier.data.get("sha256") not in known:
        return rule.facts()
    return {name: earlier.data[name] for name in ("split", "gap") if name in earlier.data}


def _refuse_other(old: SensitivityHeader, new: SensitivityHeader, path: Path) -> None:
    differences: list[tuple[str, Any, Any]] = [
        ("model", old.model.get("sha256"), new.model.get("sha256")),
        ("data source", _named(old), _named(new)),
        ("data", old.data.get("sha256"), new.data.get("sha256" if old.data.get("sha256") != new.data.get("grown_from") else "grown_from")),
        ("held-out share", old.data.get("held_out"), new.data.get("held_out")),
        ("seed", old.data.get("seed"), new.data.get("seed")),
        ("split", old.data.get("split", "that of an earlier version"), new.data.get("split", "that of an earlier version")),
        *((name, old.settings.get(name), new.settings.get(name)) for name in new.settings if name in old.settings or name != "outputs"),
    ]
    for name, before, now in differences:
        if before != now:
            raise MismatchError(
                f"{path} holds an analysis with another {name} ({_short(before)}, now {_short(now)}): "
                "delete it, or write elsewhere with --output"
            )


def _named(header: SensitivityHeader) -> str:
    return "some data" if header.data else "none"


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text


def _replace_header(path: Path, header: SensitivityHeader) -> None:
    lines = path.read_bytes().split(b"\n", 1)[1]
    lines = lines[: lines.rfind(b"\n") + 1]
    with atomic_write(path) as file:
        file.write(journal_line(header.to_dict()) + lines)
