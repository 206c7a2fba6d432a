"""Measures the size of any file or folder, and the layers of plans and artifacts. No torch."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mpq.check.revision import check_revision, copy_at
from mpq.errors import FormatError, UsageError
from mpq.files import PREFIX, exists, open_file
from mpq.formats.scheme import Scheme
from mpq.records.artifact import is_artifact, read_rest_bytes
from mpq.records.artifact_files import artifact_bytes, artifact_files, is_index, read_header
from mpq.records.loaded_size import FORMS, Form, loaded_bytes
from mpq.records.plan import Plan, read_plan

Kind = Literal["plan", "artifact", "other"]
MODEL_ENDINGS = (".safetensors", ".onnx", ".gguf", ".pt2", ".pt", ".pth", ".bin")
_SIDECARS = (".data", "_data")  # where ONNX keeps weights next to the graph
_POINTER = re.compile(rb"version https://git-lfs[^\n]*\n(?:[^\n]*\n)*?size (\d+)\n")


@dataclass(frozen=True)
class Weighed:
    """A file with its size.

    Args:
        path: as the user wrote it.
        kind: a plan, an artifact, or any other file or folder.
        bytes: of the file or of everything in the folder; of a plan, what `mpq apply` would write.
        loaded: bytes of the model in memory by form, see `records/loaded_size.py`; empty for other files.
        layers: scheme by layer name; empty for other files.
        taken: bytes by layer name.
        weights: of the layers.
        plan: the plan, where it is one.
    """

    path: str
    kind: Kind
    bytes: int
    layers: dict[str, Scheme] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)
    weights: int = 0
    loaded: dict[Form, int] = field(default_factory=dict)
    plan: Plan | None = None

    @property
    def effective_bits(self) -> float:
        """Bits per weight over the layers."""
        return 8 * sum(self.taken.values()) / self.weights

    @property
    def held_out(self) -> float | None:
        """The plan's measured error; None if its current layers were not measured."""
        if self.plan is None or not self.plan.evidence_is_current:
            return None
        return self.plan.held_out_error


def has_layers(path: Path) -> bool:
    """Whether the file is a plan or an artifact, so that more than its size is known."""
    if path.is_dir() or is_index(path):
        return is_index(path)
    return path.suffix not in MODEL_ENDINGS or path.name.endswith(".mpq.safetensors") or is_artifact(path)


def weigh(path: Path) -> Weighed:
    """Measure a file or a folder.

    Raises:
        FormatError: if it does not exist, or is a damaged plan or artifact.
    """
    if is_index(path) and path.exists():
        return _artifact(path)
    if path.is_dir():
        return Weighed(str(path), "other", sum(each.stat().st_size for each in path.rglob("*") if each.is_file()))
    if not path.is_file():
        raise FormatError(f"{path} does not exist: name a plan, an artifact, or any model file or folder")
    if is_artifact(path) or path.name.endswith(".mpq.safetensors"):
        return _artifact(path)
    if _is_plan(path):
        return _plan(read_plan(path), str(path))
    beside = [Path(f"{path}{ending}") for ending in _SIDECARS] if path.suffix == ".onnx" else []
    return Weighed(str(path), "other", sum(each.stat().st_size for each in (path, *beside) if each.is_file()))


def weigh_baseline(path: Path, baseline: str) -> Weighed | None:
    """What `path` is compared with: `baseline` if that is a file or folder, else `path` at that git revision; None if it did not exist.

    Raises:
        UsageError: if `baseline` is neither, or `path` is a folder.
    """
    if exists(Path(baseline)):
        return weigh(Path(baseline))
    if path.is_dir():
        raise UsageError(f"{path} is a folder, which cannot be compared with revision {baseline}: name the files, or a baseline folder")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        try:
            copy_at(baseline, str(path), copy)
        except UsageError:
            check_revision(baseline)
            return None
        with copy.open("rb") as file:
            pointer = _POINTER.match(file.read(1024))
        if pointer is not None:
            return Weighed(f"{baseline}:{path}", "other", int(pointer[1]))
        found = weigh(copy)
    return Weighed(**{**vars(found), "path": f"{baseline}:{path}"})


def _is_plan(path: Path) -> bool:
    """Whether a file is a plan, by its name or by its first lines."""
    if path.suffix in (".yaml", ".yml"):
        return True
    with open_file(path) as file:
        return path.suffix not in MODEL_ENDINGS and re.search(rb"^mpq_plan:", file.read(PREFIX), re.MULTILINE) is not None


def _plan(plan: Plan, path: str) -> Weighed:
    taken = {name: scheme.stored_bits(plan.shapes[name]) // 8 for name, scheme in plan.layers.items()}
    loaded = _loaded(plan.layers, plan.shapes, original_bytes=plan.original_bytes, rest_bytes=plan.rest.original_bytes)
    return Weighed(path, "plan", plan.size.file_bytes, dict(plan.layers), taken, plan.weights, loaded, plan)


def _artifact(path: Path) -> Weighed:
    header = read_header(path)
    taken = {layer.name: header.schemes[layer.name].stored_bits(layer.matrix) // 8 for layer in header.layers}
    weights = sum(layer.weights for layer in header.layers)
    loaded = _loaded(
        header.schemes,
        {layer.name: layer.matrix for layer in header.layers},
        original_bytes=sum(layer.original_bytes for layer in header.layers),
        rest_bytes=sum(read_rest_bytes(file, header) for file in artifact_files(path)),
    )
    return Weighed(str(path), "artifact", artifact_bytes(path), dict(header.schemes), taken, weights, loaded)


def _loaded(
    schemes: Mapping[str, Scheme], matrices: Mapping[str, tuple[int, int]], *, original_bytes: int, rest_bytes: int
) -> dict[Form, int]:
    return {form: loaded_bytes(schemes, matrices, original_bytes=original_bytes, rest_bytes=rest_bytes, form=form) for form in FORMS}
