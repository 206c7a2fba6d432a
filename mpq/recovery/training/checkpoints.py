"""Checkpoints of a training run: written whole or not at all, the last two kept, and read without running code."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mpq.files import atomic_write

_NAME = re.compile(r"step-(\d{1,12})\.safetensors")
_KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """Where a run was.

    Args:
        facts: numbers and lists, as JSON.
        tensors: by name.
    """

    facts: dict[str, Any]
    tensors: dict[str, Tensor]


class Checkpoints:
    """The checkpoints of one run in a folder.

    Args:
        folder: made when the first is written.
        key: of all that the run depends on; checkpoints of other runs are not read.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self._key = folder, key

    def newest(self) -> Checkpoint | None:
        """The last whole checkpoint of this run; None if there is none."""
        for _, path in sorted(self._files(), reverse=True):
            found = self._read(path)
            if found is not None:
                return found
        return None

    def save(self, step: int, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Write a checkpoint, then remove all but the last two.

        Raises:
            OutputError: if it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"key": self._key, "facts": json.dumps(facts)})
        with atomic_write(self.folder / f"step-{step}.safetensors") as file:
            file.write(content)
        for _, path in sorted(self._files(), reverse=True)[_KEPT:]:
            with suppress(OSError):
                path.unlink()

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[tuple[int, Path]]:
        if not self.folder.is_dir():
            return []
        found = ((_NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        return [(int(match[1]), path) for match, path in found if match]

    def _read(self, path: Path) -> Checkpoint | None:
        try:
            with safe_open(path, framework="pt") as file:
                said = file.metadata() or {}
                if said.get("key") != self._key:
                    return None
                return Checkpoint(json.loads(said["facts"]), {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except (SafetensorError, OSError, ValueError, KeyError):
            return None  # damaged; the one before serves
