"""The base of all targets: what a target can express, what it gets, and what it returns.

An export runs in this order:

    target.check_place(output)             refuses a place that cannot be written to
    target.check(source, options)          refuses what cannot work, before anything long; imports its packages
    target.abilities                       each layer's scheme is taken as it is, or replaced by the cheapest one that holds its values
    target.write(source, output, options)  writes one file or folder, and says what it wrote

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
from mpq.export.nearest_scheme import closest
from mpq.export.output_place import check_place
from mpq.export.source import Source
from mpq.formats.scheme import Scheme


@dataclass(frozen=True)
class Options:
    """The user's options for one export.

    Args:
        data: file with one or more samples of inputs, for a model that brings none.
        model: the original model, where the plan's or artifact's path does not lead to it.
        fused: demand that layers which a runtime fuses share one scheme.
        plan: the plan of an artifact, where it may be elsewhere than next to it.
        factory: "package.module:callable" that makes the module of a state dict, when the user names it.
        trust: allow files to run code of their own.
        compare: run what was exported next to the artifact, where its runtime is installed, and refuse other outputs.
        fingerprint: write what the export should hold and compute beside it, for `mpq verify`.
        base_model: `org/name` of the original model on the hub, for the model card.
        evaluation: what `mpq eval --json` printed for the artifact, for the model card.
        report: the text of the report, to lie beside the weights.
    """

    data: str | None = None
    model: Path | None = None
    fused: bool = True
    plan: Path | None = None
    factory: str | None = None
    trust: bool = False
    compare: bool = True
    fingerprint: bool = True
    base_model: str | None = None
    evaluation: Mapping[str, Any] | None = None
    report: str | None = None


@dataclass(frozen=True)
class Written:
    """What a target wrote.

    Args:
        path: the file or folder.
        notes: what the user should know: layers stored otherwise, how to use the result.
        others: files that belong to it.
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
    """One place that plans or artifacts go to."""

    needs_weights: ClassVar[bool] = True
    """Whether an artifact is needed; otherwise a plan is enough."""
    ending: ClassVar[str]
    """What the output's name ends with, after the model's name."""
    abilities: ClassVar[Abilities]
    keeps_rest: ClassVar[bool] = False
    """Whether unquantized tensors are written in the dtype that the artifact stores them in, where `--rest` chose one."""
    suffix: ClassVar[str | None] = None
    """What the output's name must end with, where the reading program wants that."""

    def check_place(self, output: Path) -> None:
        """Refuse a place that cannot be written to.

        Raises:
            OutputError: with what is in the way.
        """
        check_place(output, folder=not self.ending.startswith("."), suffix=self.suffix)

    def places(self, output: Path) -> tuple[Path, ...]:
        """All files that are written, or the folder that they are written to."""
        return (output,)

    def check(self, source: Source, options: Options) -> None:  # noqa: B027
        """Refuse what this target cannot take, before anything is written.

        Raises:
            ExportError: saying what is in the way and what would help.
        """

    def takes(self, name: str) -> bool:
        """Whether the target stores or quantizes this layer by its scheme; otherwise any scheme will do."""
        return True

    def closest(self, name: str, scheme: Scheme, matrix: tuple[int, int]) -> Scheme | None:
        """The scheme that the target takes for a layer that it `takes`: its own if it can; None if nothing holds its values."""
        return closest(scheme, matrix, self.abilities)

    @abstractmethod
    def write(self, source: Source, output: Path, options: Options) -> Written:
        """Write `source` to `output`."""


def package(name: str, *, extra: str) -> Any:
    """The module `name`, imported now.

    Raises:
        ExportError: naming the extra of mpq to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExportError(f"this target needs {name.partition('.')[0]}: {install(extra)}") from error
