"""Parts: an analysis divided among machines that never meet, each with some of the layers. No torch.

The parts have one header, so each is known to be of the same analysis; `mpq merge` joins their files. A part has all samples of its layers,
and leaves out what looks at all layers: the self-check, unseen rows, and what is negligible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mpq.errors import UsageError
from mpq.formats.scheme import Scheme
from mpq.records.layer import Layer

MOST = 4096


def read_part(text: str) -> tuple[int, int]:
    """The number of a part, from 1, and of all parts: "1/2".

    Raises:
        UsageError: if it is not that.
    """
    number, mark, count = text.partition("/")
    if not (mark and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) <= MOST):
        raise UsageError(f"--part {text} is not a part: write 1/2 on one machine and 2/2 on another")
    return int(number), int(count)


def layers_of_part(layers: Sequence[Layer], candidates: Mapping[str, Sequence[Scheme]], part: tuple[int, int]) -> list[Layer]:
    """The layers of one part, in their order: all parts together are all layers, and have about as many weights and schemes each.

    Raises:
        UsageError: if there are more parts than layers.
    """
    number, count = part
    if count > len(layers):
        raise UsageError(f"--part {number}/{count}: there are only {len(layers)} layers")
    work = [0] * count
    owner: dict[str, int] = {}
    for layer in sorted(layers, key=lambda layer: -layer.weights * len(candidates[layer.name])):  # the largest first
        least = work.index(min(work))
        work[least] += layer.weights * len(candidates[layer.name])
        owner[layer.name] = least
    return [layer for layer in layers if owner[layer.name] == number - 1]
