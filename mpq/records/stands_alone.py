"""Whether an artifact contains everything that rebuilds its module. No torch."""

from __future__ import annotations

from pathlib import Path

from mpq.records.artifact import ArtifactHeader, holds_program
from mpq.records.artifact_files import artifact_files


def stands_alone(header: ArtifactHeader, path: Path) -> bool:
    """Whether `mpq.load(artifact)` needs no module: false for bare weights, and for models with custom code.

    Args:
        header: of the artifact.
        path: the artifact.
    """
    if header.model.get("kind") == "hf":
        return bool(header.config)
    return header.model.get("kind") == "export" and any(holds_program(file) for file in artifact_files(path))
