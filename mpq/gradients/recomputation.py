"""Turns off activation checkpointing while gradients per sample are computed.

`torch.utils.checkpoint` runs a part of the forward pass without a graph and again during the backward pass. Hooks on weights then see the
part twice, or not at all. With checkpointing off the part runs once, as in a plain model: the same values, with the memory that
checkpointing saves. This file holds torch's private names for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils import checkpoint


class _Plain:
    """Stands in for the reentrant form, an autograd function."""

    @staticmethod
    def apply(function: Callable[..., Any], _preserve_rng_state: bool, *args: Any) -> Any:
        """Call `function` directly."""
        return function(*args)


def _nothing(*_: Any, **__: Any) -> Iterator[None]:
    """Stands in for the other form, a generator around the call."""
    yield


@contextmanager
def without_recomputation() -> Iterator[None]:
    """Inside the `with`, checkpointed parts run as ordinary code."""
    held = checkpoint.CheckpointFunction, checkpoint._checkpoint_without_reentrant_generator
    checkpoint.CheckpointFunction = _Plain  # type: ignore[misc, assignment, unused-ignore]
    checkpoint._checkpoint_without_reentrant_generator = _nothing  # type: ignore[assignment, unused-ignore]
    try:
        yield
    finally:
        checkpoint.CheckpointFunction, checkpoint._checkpoint_without_reentrant_generator = held  # type: ignore[misc, unused-ignore]
