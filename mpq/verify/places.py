"""Where the layers of a fingerprint should be in a file."""

from __future__ import annotations

from mpq.export.stored.base import Place
from mpq.formats.scheme import parse_scheme
from mpq.records.fingerprint import Fingerprint


def places_of(fingerprint: Fingerprint) -> list[Place]:
    """One place for each layer, in model order."""
    return [Place(facts.place, parse_scheme(facts.scheme), (facts.matrix[0], facts.matrix[1])) for facts in fingerprint.layers.values()]
