"""llama.cpp through its Python package. Its kernels round the inputs of layers to 8 bits; it computes one sequence at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mpq.distribution import requirement
from mpq.export.stored.gguf import read
from mpq.records.fingerprint import Fingerprint
from mpq.verify.places import places_of
from mpq.verify.programs.base import Loaded, Program, imported

_INSTALL = "llama-cpp-python"


class LlamaCpp(Program):
    """Loads the output of `mpq export --to gguf`."""

    targets = ("gguf",)
    packages = (("llama_cpp", _INSTALL), ("gguf", requirement("gguf")))

    def load(self, path: Path, fingerprint: Fingerprint, *, trust: bool) -> Loaded:
        """Open a context that keeps the logits of every token."""
        return _Context(path, fingerprint)


class _Context(Loaded):
    def __init__(self, path: Path, fingerprint: Fingerprint) -> None:
        self.held = read(path, places_of(fingerprint))
        longest = max((each.shape[-1] for each in fingerprint.inputs), default=1)
        self._model = imported("llama_cpp", _INSTALL).Llama(model_path=str(path), n_ctx=longest, logits_all=True, verbose=False)

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return [torch.stack([self._logits(row.tolist()) for row in inputs[0]])]

    def _logits(self, tokens: list[int]) -> Tensor:
        self._model.reset()
        self._model.eval(tokens)
        return torch.from_numpy(np.array(self._model.scores[: len(tokens)], dtype=np.float32))
