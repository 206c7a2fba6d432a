"""Says which kernel runs, while something asks for it; else a call costs one look at an empty tuple."""

from __future__ import annotations

from collections.abc import Callable

from mpq.tensors.kernels.codes import Codes

DEQUANTIZED, LOOKUP = "dequantize", "lookup"
"""What is no kernel for products: the whole weight in floating point for the call, and rows by index."""
Note = Callable[[str, Codes, int], None]
"""Called with the name of a kernel, the codes that it reads, and the number of input rows; 0 if nobody knows."""

notes: tuple[Note, ...] = ()
"""Who asks now."""


class Watch:
    """Asks until it is removed, like a hook of torch.

    Args:
        note: called before each kernel, in the thread that runs it.
    """

    def __init__(self, note: Note) -> None:
        global notes
        self._note = note
        notes = (*notes, note)

    def remove(self) -> None:
        """Ask no longer."""
        global notes
        notes = tuple(note for note in notes if note is not self._note)


def ran(name: str, packed: Codes, samples: int = 0) -> None:
    """Tell all who ask that a kernel runs; "bags" gets its bits."""
    for note in notes:
        note(f"{name}{packed.bits}" if name == "bags" else name, packed, samples)
