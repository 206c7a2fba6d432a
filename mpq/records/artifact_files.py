"""An artifact in one file or in several, which an index names, read as one. No torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mpq.errors import FormatError
from mpq.files import check_version
from mpq.reading.documents import read_json
from mpq.reading.validate import validated
from mpq.records.artifact import ArtifactHeader, read_artifact_header
from mpq.records.artifact_file import INDEX_VERSION, IndexFile
from mpq.shown import shown

_REMEDY = "run `mpq apply` again"
_ENDING = ".index.json"


def is_index(path: Path) -> bool:
    """Whether `path` is the index of an artifact in several files, or a folder that holds one, by name."""
    if path.is_dir():
        return any(path.glob(f"*.mpq.safetensors{_ENDING}"))
    return path.name.endswith(f".mpq.safetensors{_ENDING}")


def artifact_files(path: Path) -> list[Path]:
    """The files of the artifact that `path` names: itself, or those of the index that it is or holds.

    Raises:
        FormatError: if the index is missing or damaged, or a folder holds several.
    """
    if not path.is_dir() and not path.name.endswith(_ENDING):
        return [path]
    index = _index_in(path)
    document = read_json(
        index, error=FormatError, absent="name the index of an artifact, as `mpq apply --shards` writes it", remedy=_REMEDY
    )
    metadata = document.value.get("metadata") if isinstance(document.value, dict) else None
    version = metadata.get("mpq_index") if isinstance(metadata, dict) else None
    check_version(version, supported=INDEX_VERSION, path=index, kind="the index of an artifact")
    names = sorted(set(validated(document, IndexFile).weight_map.values()))
    stray = next((name for name in names if name in ("", ".", "..") or not {"/", "\\", "\0"}.isdisjoint(name)), None)
    if stray is not None:
        raise document.refuse(f"{shown(stray)} is not the name of a file in the same folder; {_REMEDY}")
    return [index.parent / name for name in names]


def read_header(path: Path) -> ArtifactHeader:
    """The header of an artifact; of several files together.

    Raises:
        FormatError: if a file is missing, damaged, not of an artifact, or from a newer version, or a layer is in two of them.
    """
    headers = [read_artifact_header(file) for file in artifact_files(path)]
    layers = tuple(layer for found in headers for layer in found.layers)
    if not layers:
        raise FormatError(f"{path} holds no quantized layer: {_REMEDY}")
    schemes = {name: scheme for found in headers for name, scheme in found.schemes.items()}
    if len(schemes) < len(layers):
        raise FormatError(f"{path} holds a layer in two of its files: {_REMEDY}")
    return replace(headers[0], layers=layers, schemes=schemes)


def artifact_bytes(path: Path) -> int:
    """Bytes of the files of an artifact, without those of the index."""
    return sum(file.stat().st_size for file in artifact_files(path))


def _index_in(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(path.glob(f"*.mpq.safetensors{_ENDING}"))
    if len(found) != 1:
        raise FormatError(f"{path} holds {len(found)} indexes of artifacts (*.mpq.safetensors{_ENDING}): name the one to load")
    return found[0]
