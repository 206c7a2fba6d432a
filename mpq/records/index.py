"""An artifact in one file or in several, which an index names, read as one. No torch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from mpq.errors import FormatError
from mpq.files import check_version
from mpq.limits import INDEX_BYTES
from mpq.records.artifact import ArtifactHeader, read_artifact_header

VERSION = 1
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
    try:
        with index.open("rb") as file:
            content = json.loads(file.read(INDEX_BYTES))
        check_version(content["metadata"].get("mpq_index"), supported=VERSION, path=index, kind="the index of an artifact")
        names = sorted(set(content["weight_map"].values()))
        if not names or any(Path(name).name != name for name in names):
            raise ValueError("it names files elsewhere")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise FormatError(f"{index} cannot be read as the index of an artifact ({error}): run `mpq apply` again") from error
    return [index.parent / name for name in names]


def read_header(path: Path) -> ArtifactHeader:
    """The header of an artifact; of several files together.

    Raises:
        FormatError: if a file is missing, damaged, not of an artifact, or from a newer version.
    """
    headers = [read_artifact_header(file) for file in artifact_files(path)]
    layers = tuple(layer for found in headers for layer in found.layers)
    return replace(headers[0], layers=layers, schemes={name: scheme for found in headers for name, scheme in found.schemes.items()})


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
