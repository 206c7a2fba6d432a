"""The first line of a sensitivity file: what was measured, on what, and how. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec import structs

from mpq.files import check_version
from mpq.formats.scheme import Scheme
from mpq.reading.documents import Document
from mpq.reading.validate import validated
from mpq.records.equalization import Chain, chains_of
from mpq.records.facts import layers_in, scheme_in
from mpq.records.layer import Layer
from mpq.records.sensitivity_file import VERSION, HeaderLine


@dataclass(frozen=True)
class Rest:
    """The part of the artifact that does not depend on the schemes.

    Args:
        header_bytes: unpadded JSON header without the layers' own share.
        data_bytes: unquantized parameters, buffers and the program.
        weights: number of parameters outside the searched layers.
        original_bytes: bytes of the unquantized parameters and buffers in the model.
        dtype: what floating-point tensors among them are stored in where that is smaller, see `REST_DTYPES`; None for their own.
    """

    header_bytes: int
    data_bytes: int
    weights: int
    original_bytes: int
    dtype: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON object; the dtype only where there is one."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class SensitivityHeader:
    """The first line: what was measured, on what, and how.

    Args:
        model: path, sha256, kind and, for a state dict, factory.
        data: source, sha256, description, and how it was read and split; `parts`, where samples were added to an analysis, are their
            numbers in order, and `grown_from` is the sha256 of the samples before the last.
        settings: metric, method, quantizer, seed; changing any of them gives another table.
        layers: the searched layers in the order of the forward pass.
        candidates: schemes by layer name.
        rest: the constant part of the artifact.
        notes: what was decided automatically and why; layers that the data never reached.
        versions: of mpq, torch and Python.
        rest_as: the constant part with its floating-point tensors stored in each of `REST_DTYPES`, or why it cannot be; empty in files of
            earlier versions.
        equalization: the channels that were scaled in the measured model.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    settings: dict[str, Any]
    layers: tuple[Layer, ...]
    candidates: dict[str, tuple[Scheme, ...]]
    rest: Rest
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    rest_as: Mapping[str, Rest | str] = field(default_factory=dict)
    equalization: tuple[Chain, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of the first line."""
        layers = [{**layer.to_dict(), "candidates": [str(scheme) for scheme in self.candidates[layer.name]]} for layer in self.layers]
        options = {name: option if isinstance(option, str) else option.to_dict() for name, option in self.rest_as.items()}
        return {
            "mpq_sensitivity": VERSION,
            "model": self.model,
            "data": self.data or None,
            "settings": self.settings,
            "rest": self.rest.to_dict(),
            **({"rest_as": options} if options else {}),
            **({"equalization": [chain.to_dict() for chain in self.equalization]} if self.equalization else {}),
            "notes": list(self.notes),
            "versions": self.versions,
            "layers": layers,
        }


def header_in(document: Document, path: Path) -> SensitivityHeader:
    """The header that the first line of the file at `path` holds.

    Raises:
        FormatError: if it is damaged, not of a sensitivity file, or from a newer version.
    """
    data = document.value
    check_version(data.get("mpq_sensitivity"), supported=VERSION, path=path, kind="a sensitivity file")
    file = validated(document, HeaderLine)
    layers = layers_in(document, ((layer.name, layer, ("layers", number)) for number, layer in enumerate(file.layers)))
    return SensitivityHeader(
        model=data["model"],
        data=data["data"] or {},
        settings=data["settings"],
        layers=layers,
        candidates={layer.name: tuple(scheme_in(document, text, "layers") for text in layer.candidates) for layer in file.layers},
        rest=Rest(**structs.asdict(file.rest)),
        notes=tuple(file.notes),
        versions=file.versions,
        rest_as={name: option if isinstance(option, str) else Rest(**structs.asdict(option)) for name, option in file.rest_as.items()},
        equalization=chains_of(file.equalization),
    )
