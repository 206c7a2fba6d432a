"""The result of loading: a module in eval mode, and what later stages need to know about its origin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from mpq.models.memory.offload import Offload


@dataclass(repr=False)
class LoadedModel:
    """A model ready to be measured.

    Args:
        module: in eval mode.
        kind: "export", "torchscript", "hf", "state_dict", "pickle" or "memory".
        sha256: over the file or files, and the `checkpoint_key` if given, so that a different entry is a different model; for "memory",
            over the names, shapes, dtypes and contents of the state dict.
        path: the file or directory; None for "memory".
        factory: "package.module:callable" that built the module for a state dict.
        checkpoint_key: the entry of a checkpoint, or the prefix of names, that the user chose.
        allow_unexpected: whether names that the module does not have were allowed.
        hub: name and commit of a downloaded model, "hf://org/name@commit"; files refer to it by this name.
        notes: how a checkpoint was read: the entry, and names that were renamed or left out.
        example_inputs: positional and keyword example inputs of an exported program.
        program: "export": the archive without its weights, compressed; `rebuild_module` builds the module from it. config: "hf": the
            config.json with the class name under "architecture"; `rebuild_module` builds the module from it.
        tokenizer: "hf": the directory, if it has a tokenizer.
        offload: "hf": where its weights are kept while they are not used; None if they are in memory.
    """

    module: nn.Module
    kind: str
    sha256: str
    path: Path | None = None
    factory: str | None = None
    example_inputs: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    program: bytes | None = None
    config: dict[str, Any] | None = None
    tokenizer: Path | None = None
    offload: Offload | None = None
    checkpoint_key: str | None = None
    allow_unexpected: bool = False
    notes: tuple[str, ...] = ()
    hub: str | None = None

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else f"{self.kind}, {self.path}"
        return f"<LoadedModel: {type(self.module).__name__}, {where}, sha256 {self.sha256[:12]}…>"
