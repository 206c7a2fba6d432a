"""The base of all programs. Each runs in a separate process, see `mpq/verify/worker.py`.

A verification runs in this order:

    program.load(path, fingerprint, trust)   loads the file like a user of the program
    loaded.held                              codes, scales and tensors, compared by checksum
    loaded.used(place)                       the weights that the program computes from them, if available
    loaded.run(inputs)                       its outputs on the fixed inputs
    loaded.layer_outputs(inputs)             called if outputs differ and the weights do not explain it
"""

from __future__ import annotations

import importlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from mpq.errors import UsageError
from mpq.export.stored.base import Held
from mpq.records.fingerprint import Fingerprint
from mpq.verify.findings import Finding


class Loaded(ABC):
    """An export in a program."""

    held: Held | None = None
    """What the file holds; None where no one reads it."""
    findings: Sequence[Finding] = ()
    """What the program itself reported while it loaded."""
    notes: Sequence[str] = ()
    """What cannot be compared, and why."""
    tolerance: float = 0.0
    """What its arithmetic explains, as a share of an output's largest value, if that is more than the fingerprint says."""

    @abstractmethod
    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The floating-point outputs of one call."""

    def used(self, place: str) -> Tensor | None:
        """The weights that the program computes from a layer's codes, float32 [rows, columns]; None if not available."""
        return None

    def layer_outputs(self, inputs: Sequence[Tensor]) -> dict[str, tuple[float, float]]:
        """Root mean square and largest magnitude of the layers' outputs, by their place, if available."""
        return {}


class Program(ABC):
    """One program."""

    targets: ClassVar[tuple[str, ...]]
    """The targets of `mpq export` whose files it loads."""
    packages: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Modules that it needs, and what to install for each."""

    def check_installed(self) -> str:
        """The version of its first package.

        Raises:
            UsageError: naming what to install.
        """
        for name, install in self.packages:
            imported(name, install)
        return _version(self.packages[0][0].partition(".")[0])

    @abstractmethod
    def load(self, path: Path, fingerprint: Fingerprint, *, trust: bool) -> Loaded:
        """Load an export.

        Raises:
            TrustError: if that would run code from the file and `trust` is not set.
        """


def _version(module: str) -> str:
    """The version of a module's package, which may have another name; empty if it says none."""
    with suppress(PackageNotFoundError):
        return version(module)
    for name in packages_distributions().get(module, ()):  # reads all packages
        with suppress(PackageNotFoundError):
            return version(name)
    return str(getattr(sys.modules.get(module), "__version__", ""))


def imported(name: str, install: str) -> Any:
    """The module `name`.

    Raises:
        UsageError: naming what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"{name.partition('.')[0]} is not installed here: pip install '{install}'") from error


def floats(outputs: Sequence[Any]) -> list[Tensor]:
    """The floating-point tensors among outputs."""
    return [each for each in outputs if isinstance(each, Tensor) and each.is_floating_point()]
