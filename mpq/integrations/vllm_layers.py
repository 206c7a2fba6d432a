"""The layers of an exported folder by the names that vLLM gives them, and what vLLM must not load. No vLLM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mpq.errors import ModelError
from mpq.formats.scheme import Scheme
from mpq.records.hub_config import METHOD
from mpq.tensors.words import BITS, GROUP_SIZES


@dataclass(frozen=True)
class NamedLayers:
    """Schemes of layers by vLLM's names.

    Args:
        schemes: by the name in vLLM's model.
        own_names: the artifact's name by vLLM's; empty if they are equal.
    """

    schemes: Mapping[str, Scheme] = field(default_factory=dict)
    own_names: Mapping[str, str] = field(default_factory=dict)

    def renamed(self, rename: Callable[[str], str | None]) -> NamedLayers:
        """The same layers under new names; a name for which `rename` gives None stays."""
        names = {rename(name) or name: name for name in self.schemes}
        return NamedLayers({new: self.schemes[old] for new, old in names.items()}, {new: self.own_name(old) for new, old in names.items()})

    def own_name(self, name: str) -> str:
        """The artifact's name of a layer."""
        return self.own_names.get(name, name)

    def packed_scheme(self, names: Sequence[str]) -> Scheme | None:
        """The one scheme of layers that vLLM fuses; None if vLLM cannot compute with the codes of any.

        Raises:
            ModelError: if their schemes differ, and vLLM could compute with some.
        """
        found = {scheme if (scheme := self.schemes.get(name)) is not None and is_covered(scheme) else None for name in names}
        if len(found) > 1:
            shown = ", ".join(f"{name} ({self.schemes.get(name, 'unquantized')})" for name in names)
            raise ModelError(f"vLLM fuses layers that have different schemes here: {shown}; search again with --for compressed-tensors")
        return found.pop()


def fused(prefix: str, mapping: Mapping[str, Sequence[str]]) -> list[str]:
    """The names of the layers that are one layer of vLLM; `mapping` has the last parts of the names by that of vLLM's layer."""
    parent, dot, leaf = prefix.rpartition(".")
    return [f"{parent}{dot}{part}" for part in mapping.get(leaf, [leaf])]


def is_covered(scheme: Scheme) -> bool:
    """Whether a weight-only kernel of vLLM can have the scheme: symmetric int4 or int8, per row or in groups of 32, 64 or 128."""
    is_plain = scheme.is_integer and scheme.symmetric and not scheme.small_scales
    return is_plain and scheme.bits in BITS and scheme.group_size in (None, *GROUP_SIZES)


def check_load_format(name: str) -> None:
    """Refuse every load format but mpq's, because vLLM's own loaders do not know the tensors of an artifact.

    Raises:
        ModelError: saying how to choose it.
    """
    if name != METHOD:
        raise ModelError(f"mpq reads the weights of this folder, not the load format {name}: use --load-format mpq (load_format='mpq')")
