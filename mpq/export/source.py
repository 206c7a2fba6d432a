"""The source of an export: a plan or an artifact, with one interface."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpq.errors import FormatError
from mpq.export.abilities import ExportError
from mpq.formats.matrix import alike_rows, all_rows
from mpq.formats.scheme import Scheme
from mpq.formats.stored import PARTS
from mpq.records.activations import Groups
from mpq.records.artifact import PROGRAM, ArtifactHeader, is_artifact
from mpq.records.artifact_files import artifact_bytes, artifact_files, is_index, read_header
from mpq.records.plan import Plan, read_plan

if TYPE_CHECKING:
    from torch import Tensor

    from mpq.records.layer import Layer
    from mpq.tensors.quantized import QuantizedWeight


@dataclass(frozen=True)
class Source:
    """A scheme for each layer, and the weights if there is an artifact.

    Args:
        path: the plan or the artifact.
        model: path, sha256, kind and, for a state dict, factory of the model.
        schemes: scheme by layer name, in model order, as the target stores them.
        matrices: (rows, columns) by layer name.
        bytes: size of the artifact, or the size that the plan predicts for it.
        header: header of the artifact; None for a plan.
        others: floating-point tensors of two or more dimensions that are not layers; None for a plan, which does not list them.
        stored: the schemes in the artifact, before any replacement; in `schemes`, coded ones are int8, because no other program reads them.
        plan: the plan, if that is the source.
        activations: tensors between layers that the target computes as integers.
        shared: the layers of which the artifact or plan stores a common row once, by name; everywhere else in a source, each row is stored.
    """

    path: Path
    model: dict[str, Any]
    schemes: dict[str, Scheme]
    matrices: dict[str, tuple[int, int]]
    bytes: int
    header: ArtifactHeader | None = None
    others: tuple[str, ...] | None = None
    stored: dict[str, Scheme] = field(default_factory=dict)
    plan: Plan | None = None
    activations: Groups = field(default_factory=dict)
    shared: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Kind of the original model, like `LoadedModel.kind`."""
        return str(self.model.get("kind"))

    @property
    def artifact(self) -> ArtifactHeader:
        """The header of the artifact.

        Raises:
            ExportError: if the source is a plan.
        """
        if self.header is None:
            raise ExportError(
                f"{self.path} is a plan, and this target needs the weights: run `mpq apply {self.path.name}`, then export what it wrote"
            )
        return self.header

    def with_schemes(self, schemes: Mapping[str, Scheme]) -> Source:
        """The same source, giving its weights in other schemes."""
        return replace(self, schemes=dict(schemes))

    def held(self, name: str) -> tuple[int, int]:
        """The shape of a layer as the artifact or plan stores it, with the rows that are alike."""
        return self.shared.get(name, self.matrices[name])

    @property
    def layer_bytes(self) -> int:
        """Bytes of the layers under these schemes, in mpq's own storage."""
        return sum(scheme.stored_bits(self.matrices[name]) // 8 for name, scheme in self.schemes.items())

    @property
    def coded(self) -> list[str]:
        """Layers whose codes are compressed in the artifact."""
        return [name for name, scheme in self.stored.items() if scheme.is_coded]

    def weights(self) -> Iterator[tuple[str, QuantizedWeight]]:
        """Each layer's name and weight, one at a time, in its scheme."""
        from mpq.export.nearest_scheme import widen
        from mpq.records.open_artifact import unpacking
        from mpq.tensors.quantized import unpack_weight

        with self.opened() as file:
            for layer in self.artifact.layers:
                with unpacking(self.path, layer.name):
                    weight = unpack_weight(self.parts(layer, file), self.stored[layer.name], layer.matrix)
                yield layer.name, widen(weight, self.schemes[layer.name])

    def parts(self, layer: Layer, file: Any) -> dict[str, Tensor]:
        """The stored parts of a layer in an open artifact, with every row by itself."""
        from mpq.records.open_artifact import parts_in
        from mpq.tensors.quantized import unpack_weight

        held, scheme = replace(layer, alike=alike_rows(self.shared.get(layer.name))), self.stored[layer.name]
        found: dict[str, Tensor] = parts_in(file, held, scheme)
        return unpack_weight(found, scheme, held.matrix).all_rows().pack() if held.alike else found

    def rest(self) -> dict[str, Tensor]:
        """The unquantized tensors by state-dict name."""
        with self.opened() as file:
            parts = {f"{layer.name}.{part}" for layer in self.artifact.layers for part in PARTS}
            return {name: file.get_tensor(name) for name in file.keys() if name not in parts and name != PROGRAM}  # noqa: SIM118

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """The artifact as one safetensors file, even if it has several files."""
        from safetensors import SafetensorError

        from mpq.records.open_artifact import opened

        try:
            with opened(artifact_files(self.path)) as file:
                yield file
        except (SafetensorError, OSError) as error:
            raise FormatError(f"{self.path} is damaged ({' '.join(str(error).split())}): run `mpq apply` again") from error


def open_source(path: Path) -> Source:
    """The plan at `path`, or the artifact: a file, the index of several files, or their folder.

    Raises:
        FormatError: if it is neither.
    """
    if not is_index(path) and not is_artifact(path):
        plan = read_plan(path)
        schemes = _in_memory(plan.layers)
        return Source(
            path,
            plan.model,
            schemes,
            {name: all_rows(matrix) for name, matrix in plan.shapes.items()},
            plan.size.file_bytes,
            stored=dict(plan.layers),
            plan=plan,
            activations=plan.activations,
            shared={name: matrix for name, matrix in plan.shapes.items() if alike_rows(matrix)},
        )
    header = read_header(path)
    shared = {layer.name: layer.matrix for layer in header.layers if layer.alike}
    header = replace(header, layers=tuple(replace(layer, alike=0) for layer in header.layers))
    schemes = _in_memory(header.schemes)
    matrices = {layer.name: layer.matrix for layer in header.layers}
    source = Source(
        path,
        header.model,
        schemes,
        matrices,
        artifact_bytes(path),
        header,
        stored=dict(header.schemes),
        activations=header.activations,
        shared=shared,
    )
    others = [name for name, tensor in source.rest().items() if tensor.is_floating_point() and tensor.ndim > 1]
    return replace(source, others=tuple(others))


def _in_memory(schemes: Mapping[str, Scheme]) -> dict[str, Scheme]:
    return {name: scheme.in_memory for name, scheme in schemes.items()}
