"""An artifact in one file or in several, which an index names, read as one. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mpq.errors import FormatError
from mpq.files import check_version
from mpq.reading.documents import read_json
from mpq.reading.validate import validated
from mpq.records.artifact import ArtifactHeader, read_artifact_header
from mpq.records.artifact_file import INDEX_VERSION, IndexFile
from mpq.records.hub_config import WEIGHTS
from mpq.shown import shown

_REMEDY = "run `mpq apply` again"
_ARTIFACT, _ENDING = ".mpq.safetensors", ".index.json"


def is_index(path: Path) -> bool:
    """Whether `path` is the index of an artifact in several files, or a folder that holds one or was exported, by name."""
    if path.is_dir():
        return any(path.glob(f"*{_ARTIFACT}{_ENDING}")) or _is_exported(path)
    return path.name.endswith(f"{_ARTIFACT}{_ENDING}")


def artifact_files(path: Path) -> list[Path]:
    """The files of the artifact that `path` names: itself, those of the index that it is or holds, or the one in an exported folder.

    Raises:
        FormatError: if the index is missing or damaged, or a folder holds several.
    """
    index = _only_in(path) if path.is_dir() else path
    if not index.name.endswith(_ENDING):
        return [index]
    document = read_json(
        index, error=FormatError, absent="name the index of an artifact, as `mpq apply --shards` writes it", remedy=_REMEDY
    )
    metadata = document.value.get("metadata") if isinstance(document.value, dict) else None
    version = metadata.get("mpq_index") if isinstance(metadata, dict) else None
    check_version(version, supported=INDEX_VERSION, path=index, kind="the index of an artifact")
    names = sorted(set(validated(document, IndexFile).weight_map.values()))
    stray = next((name for name in names if not is_plain_name(name)), None)
    if stray is not None:
        raise document.refuse(f"{shown(stray)} is not the name of a file in the same folder; {_REMEDY}")
    return [index.parent / name for name in names]


def read_header(path: Path) -> ArtifactHeader:
    """The header of an artifact; of several files together.

    Raises:
        FormatError: if a file is missing, damaged, not of an artifact, or from a newer version, or a layer is in two of them.
    """
    return headers_as_one(artifact_files(path), path)


def headers_as_one(files: Sequence[Path], path: Path) -> ArtifactHeader:
    """The header of the artifact that `path` names, from those of all its files.

    Raises:
        FormatError: as `read_header`.
    """
    headers = [read_artifact_header(file) for file in files]
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


def is_plain_name(name: str) -> bool:
    """Whether a name can only be that of a file in the folder where it is looked for."""
    return name not in ("", ".", "..") and {"/", "\\", "\0"}.isdisjoint(name)


def _is_exported(folder: Path) -> bool:
    """Whether `mpq export --to huggingface` wrote a folder, by the names in it; the folder of an original model is not one."""
    return (folder / WEIGHTS).is_file() and (folder / "config.json").is_file() and not (folder / "model.safetensors").exists()


def _only_in(folder: Path) -> Path:
    """The one index in a folder, or the artifact of an exported one."""
    found = sorted(folder.glob(f"*{_ARTIFACT}{_ENDING}"))
    if not found and _is_exported(folder):
        return folder / WEIGHTS
    if len(found) != 1:
        raise FormatError(f"{folder} holds {len(found)} indexes of artifacts (*{_ARTIFACT}{_ENDING}): name the one to load")
    return found[0]
