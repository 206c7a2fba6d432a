"""Rebuilds a module from the contents of an artifact, without the model's file."""

from __future__ import annotations

from typing import Any

from torch import nn

from mpq.errors import FormatError, ModelError
from mpq.models.sources.exported_program import rebuild_program
from mpq.models.sources.huggingface import rebuild_directory


def rebuild_module(
    kind: str, *, program: bytes | None, config: dict[str, Any] | None, hollow: bool = False, most: int | None = None
) -> nn.Module:
    """The module of an "export" or "hf" model with zeros as weights, in eval mode, with the state dict names of the original.

    Args:
        kind: kind of the source model.
        program: program of an "export" model.
        config: configuration of an "hf" model.
        hollow: leave the parameters without memory, to be replaced by `replace_tensor`.
        most: number of parameters of an "hf" model with values; None allows any number.

    Raises:
        FormatError: if the program or configuration is missing or damaged.
        ModelError: if the module of such a model cannot be rebuilt.
    """
    if kind == "export":
        if program is None:
            raise FormatError("the artifact contains no program: give the original model too")
        return rebuild_program(program, hollow=hollow)
    if kind == "hf":
        if config is None:
            raise FormatError("the artifact contains no configuration: give the original model too")
        return rebuild_directory(config, hollow=hollow, most=most)
    raise ModelError(f"a model of kind '{kind}' cannot be rebuilt from the artifact alone: give the original model too")
