"""ExecuTorch on the CPU. Its kernels pack the weights when a program is written, so only outputs can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from mpq.distribution import requirement
from mpq.records.fingerprint import Fingerprint
from mpq.verify.programs.base import Loaded, Program, floats, imported

_INSTALL = requirement("executorch")


class ExecuTorch(Program):
    """Loads the output of `mpq export --to executorch`."""

    targets = ("executorch",)
    packages = (("executorch.runtime", _INSTALL), ("executorch.kernels.quantized", _INSTALL))

    def load(self, path: Path, fingerprint: Fingerprint, *, trust: bool) -> Loaded:
        """Load the method "forward"."""
        return _Method(path)


class _Method(Loaded):
    notes = ("the weights in an ExecuTorch program cannot be read, so only its outputs are compared",)

    def __init__(self, path: Path) -> None:
        self._program = imported("executorch.runtime", _INSTALL).Runtime.get().load_program(path)
        self._method = self._program.load_method("forward")

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return floats(self._method.execute(list(inputs)))
