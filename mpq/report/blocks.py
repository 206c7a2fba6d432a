"""Blocks: the repeated parts of a model, found from the names of its layers."""

from __future__ import annotations


def block_of(name: str) -> str:
    """The block of a layer: its name up to the first number that is not at the end.

    "model.layers.3.mlp.up_proj" is in "model.layers.3", "features.7" in "features", and "conv1" is a separate block.
    """
    parts = name.split(".")
    for index, part in enumerate(parts[:-1]):
        if part.isdigit():
            return ".".join(parts[: index + 1])
    return ".".join(parts[:-1]) if parts[-1].isdigit() and len(parts) > 1 else name
