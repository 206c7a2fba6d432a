"""The memory that training takes, before it starts."""

from __future__ import annotations

from mpq.errors import DataError
from mpq.models.memory.available import available_bytes
from mpq.recovery.base import State
from mpq.recovery.trainable import Codes, may_move, scaled_weights
from mpq.tensors.quantized import QuantizedWeight

_FIXED = 12  # bytes for a weight: its value, the one that it replaces, and its gradient
_MOVING = (
    90  # for one whose code moves: positions and Adam's two moments now, at the best and at the last evaluation, and while they are saved
)


def training_bytes(state: State, codes: Codes) -> int:
    """Bytes that training takes at its peak, apart from the model, its outputs and the activations of one batch.

    Args:
        state: to begin with.
        codes: whose codes move.
    """
    counts = {name: weight.codes.numel() for name, weight in state.weights.items()}
    scaled = scaled_weights(state.weights)
    moving = sum(counts[name] for name, weight in scaled.items() if _moves(weight, codes)) if may_move(scaled, codes) else 0
    return _MOVING * moving + _FIXED * (sum(counts.values()) - moving)


def check_memory(state: State, codes: Codes) -> None:
    """Check that training fits into the memory that is available, if that is known.

    Raises:
        DataError: if it does not.
    """
    needed, free = training_bytes(state, codes), available_bytes()
    if free is None or needed <= free:
        return
    fewer = training_bytes(state, "none")
    less = f": --level scales takes {fewer / 1e9:.2g} GB" if fewer <= free < needed else ""
    raise DataError(f"training would take about {needed / 1e9:.2g} GB of memory, and {free / 1e9:.2g} GB are available{less}")


def _moves(weight: QuantizedWeight, codes: Codes) -> bool:
    return not weight.scheme.is_coded and (weight.scheme.is_integer or codes == "all")
