"""The base of all targets: the schemes that a target supports, its inputs, and its results.

An export runs in this order:

    target.check_place(output)             refuses an output that cannot be written
    target.check(source, options)          refuses, before the long work, what cannot work; imports its packages
    target.abilities                       each layer keeps its scheme, or uses the cheapest one that represents its values
    target.write(source, output, options)  writes one file or folder, and returns what it wrote

`write` is only called with schemes that `abilities` allows, and asks the source for weights in those schemes.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mpq.distribution import install
from mpq.export.abilities import Abilities, ExportError
from mpq.export.nearest_scheme import closest, without_idle_group
from mpq.export.output_place import check_place
from mpq.export.source import Source
from mpq.formats.scheme import Scheme
from mpq.records.layer import Layer


@dataclass(frozen=True)
class Options:
    """The user's options for one export.

    Args:
        data: file with one or more samples, for a model without example inputs.
        model: the original model, if it is not at the path in the plan or artifact.
        fused: require that layers which a runtime fuses share one scheme.
        plan: the plan of an artifact, if it is not next to it.
        factory: "package.module:callable" that builds the module for a state dict, if the user names it.
        trust: allow files to run their own code.
        compare: run the export and the artifact on the same inputs, if the runtime is installed, and refuse the export if outputs differ.
        fingerprint: write a fingerprint of the export next to it, for `mpq verify`.
        symmetric: give integer activations ranges around 0, and int8 codes, as TensorRT takes them; only for onnx.
        base_model: `org/name` of the original model on the hub, for the model card.
        evaluation: the output of `mpq eval --json` for the artifact, for the model card.
        report: the text of the report, to be stored with the weights.
    """

    data: str | None = None
    model: Path | None = None
    fused: bool = True
    plan: Path | None = None
    factory: str | None = None
    trust: bool = False
    compare: bool = True
    fingerprint: bool = True
    symmetric: bool = False
    base_model: str | None = None
    evaluation: Mapping[str, Any] | None = None
    report: str | None = None


@dataclass(frozen=True)
class Written:
    """The output of a target.

    Args:
        path: the file or folder.
        notes: what the user should know: layers stored in a different form, how to use the result.
        others: further files that belong to it.
    """

    path: Path
    notes: tuple[str, ...] = ()
    others: tuple[Path, ...] = ()

    @property
    def bytes(self) -> int:
        """Size on disk of all its files."""
        if self.path.is_file():
            return sum(file.stat().st_size for file in (self.path, *self.others))
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())


class Target(ABC):
    """One export format."""

    needs_weights: ClassVar[bool] = True
    """Whether an artifact is needed; otherwise a plan is enough."""
    ending: ClassVar[str]
    """What the output's name ends with, after the model's name."""
    abilities: ClassVar[Abilities]
    keeps_rest: ClassVar[bool] = False
    """Whether unquantized tensors are written in the dtype that the artifact stores them in, where `--rest` chose one."""
    keeps_artifact: ClassVar[bool] = False
    """Whether the artifact itself is written."""
    fuses: ClassVar[bool] = False
    """Whether what loads the export computes q/k/v or gate/up in one product, and so needs one scheme for them."""
    keeps_activations: ClassVar[bool] = False
    """Whether tensors between layers that are integers in the plan are integers in what is written."""
    has_symmetric: ClassVar[bool] = False
    """Whether integer activations may have ranges around 0."""
    suffix: ClassVar[str | None] = None
    """What the output's name must end with, where the reading program wants that."""

    def check_place(self, output: Path) -> None:
        """Refuse an output that cannot be written.

        Raises:
            OutputError: with the reason.
        """
        check_place(output, folder=not self.ending.startswith("."), suffix=self.suffix)

    def places(self, output: Path) -> tuple[Path, ...]:
        """All files that are written, or their folder."""
        return (output,)

    def check(self, source: Source, options: Options) -> None:  # noqa: B027
        """Refuse what this target does not support, before anything is written.

        Raises:
            ExportError: with the reason and a remedy.
        """

    def takes(self, name: str) -> bool:
        """Whether the target uses this layer's scheme; otherwise any scheme is possible."""
        return True

    def closest(self, name: str, scheme: Scheme, matrix: tuple[int, int]) -> Scheme | None:
        """The scheme for a layer that the target `takes`: its own if supported; None if no scheme represents its values."""
        return closest(scheme, matrix, self.abilities)

    def stores(self, layer: Layer) -> bool:
        """Whether codes of a layer are stored, as far as the layer itself tells; otherwise it stays in floating point."""
        return True

    def expresses(self, layer: Layer, scheme: Scheme) -> bool:
        """Whether a plan may give a layer this scheme and the target stores it as it is; known before there is an artifact."""
        scheme = without_idle_group(scheme, layer.matrix)
        return not self.stores(layer) or Target.closest(self, layer.name, scheme, layer.matrix) == scheme

    @abstractmethod
    def write(self, source: Source, output: Path, options: Options) -> Written:
        """Write `source` to `output`."""


def package(name: str, *, extra: str) -> Any:
    """Import the module `name`.

    Raises:
        ExportError: naming the extra of mpq to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExportError(f"this target needs {name.partition('.')[0]}: {install(extra)}") from error
