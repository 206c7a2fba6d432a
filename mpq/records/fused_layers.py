"""Layers that runtimes fuse into one matrix product, and that therefore need one scheme: query, key and value; gate and up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

FAMILIES = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("q", "k", "v"),
    ("wq", "wk", "wv"),
    ("gate_proj", "up_proj"),
    ("w1", "w3"),
)
"""Fused layers, by the last part of their names."""


def fused_groups(names: Iterable[str], *, complete: bool = False) -> Iterator[tuple[str, ...]]:
    """The groups of sibling layers among `names`, each with at least two members, or with all if `complete`."""
    places = {(parent, leaf): name for name in names for parent, _, leaf in [name.rpartition(".")]}
    for parent in dict.fromkeys(parent for parent, _ in places):
        for family in FAMILIES:
            group = tuple(places[parent, leaf] for leaf in family if (parent, leaf) in places)
            if len(group) >= (len(family) if complete else 2):
                yield group
