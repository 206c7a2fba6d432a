"""What loading gives: a module in eval mode, and what later stages need to know about where it came from."""

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
        module: in eval mode, on the CPU.
        kind: "export", "torchscript", "hf", "state_dict", "pickle" or "memory".
        sha256: of the file or files, with a `checkpoint_key` of both, so that another entry is another model; for "memory" of the names,
            shapes, dtypes and contents of the state dict.
        path: the file or directory; None for "memory".
        factory: "package.module:callable" that made the module of a state dict.
        checkpoint_key: the entry of a checkpoint, or the prefix of names, that the user chose.
        allow_unexpected: names of a checkpoint that the module does not have were allowed.
        hub: of a model that was downloaded, its name and commit, "hf://org/name@commit"; files name it by that.
        notes: how a checkpoint was read: the entry, names that were renamed or left out.
        example_inputs: positional and keyword inputs that an exported program carries.
        program: "export": the archive without its weights, compressed; `rebuild_module` makes the module from it.
        config: "hf": the config.json with the class name under "architecture"; `rebuild_module` makes the module from it.
        tokenizer: "hf": the directory, when it holds a tokenizer.
        offload: "hf": where its weights are while they are not used; None if they are in memory.
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
