"""What a damage is, and how one is chosen for a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mpq.records.fingerprint import Fingerprint


class Damage(NamedTuple):
    """What was done to which layer, and the kinds of finding that name it."""

    name: str
    layer: str
    kinds: tuple[str, ...]
    do: Callable[[], None]


def swapped_nibbles(packed: Any) -> Any:
    """Bytes whose halves are swapped."""
    flat = np.ascontiguousarray(packed).view(np.uint8)
    return (flat >> 4 | flat << 4).view(packed.dtype)


def rolled(scales: Any) -> Any:
    """Scales [rows, groups] of the row before."""
    return np.roll(scales, 1, axis=0)


def reordered(scales: Any) -> Any:
    """Scales [rows, groups] in the reverse order of groups."""
    return np.ascontiguousarray(np.flip(scales, axis=1))


_KINDS: dict[str, tuple[str, ...]] = {
    "scales of other rows": ("scales swapped",),
    "scales of another layer": ("scales swapped",),
    "groups in another order": ("group order",),
    "nibbles swapped": ("nibbles swapped",),
    "another group size": ("group size",),
    "loaded as float": ("unquantized",),
    "layer missing": ("layer missing", "unquantized"),
    "tensor missing": ("tensor missing",),
    "tied head lost": ("tie lost", "tensor missing"),
}


class Damaged:
    """Damages of one target; a subclass has a method for each that its files can have."""

    def __init__(self, export: Path, fingerprint: Fingerprint) -> None:
        self.export, self.layers, self.tensors = export, fingerprint.layers, fingerprint.tensors
        self.ties = sorted(fingerprint.ties) if fingerprint.target == "compressed-tensors" else []

    def all(self) -> Iterator[Damage]:
        """All of them."""
        for name, kinds in _KINDS.items():
            method = getattr(self, name.replace(" ", "_"), None)
            layer = None if method is None else self._layer(name)
            if method is not None and layer is not None:
                yield Damage(name, layer, kinds, lambda method=method, layer=layer: method(layer))  # type: ignore[misc]

    def _layer(self, name: str) -> str | None:
        """A layer that can have this damage, from the middle of the model."""
        grouped = re.compile(r"int[48]-g\d+")
        found = [layer for layer, facts in self.layers.items() if grouped.fullmatch(facts.scheme) and facts.matrix[1] > 32]
        if name == "nibbles swapped":
            found = [layer for layer in found if self.layers[layer].scheme.startswith("int4")]
        if name == "scales of another layer":
            found = [layer for layer in found if self.like(layer) is not None]
        if name == "tied head lost":
            found = [layer for layer, facts in self.layers.items() if len(facts.uses) > 1] + self.ties
        if name == "tensor missing":
            found = sorted(self.tensors)
        return found[len(found) // 2] if found else None

    def like(self, layer: str) -> str | None:
        """Another layer with scales of the same shape."""
        facts = self.layers[layer]
        return next((o for o, f in self.layers.items() if o != layer and (f.scheme, f.matrix) == (facts.scheme, facts.matrix)), None)

    def place(self, layer: str) -> str:
        """The layer's name in the file."""
        return self.layers[layer].place
