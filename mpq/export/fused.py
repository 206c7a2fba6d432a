"""Layers that vLLM computes in one product, and so wants in one scheme: query, key and value; gate and up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from mpq.export.base import ExportError
from mpq.schemes import Scheme

FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
_SHOWN = 2


def check_fused(schemes: Mapping[str, Scheme], names: Iterable[str]) -> None:
    """Refuse fused layers of unequal schemes.

    Args:
        schemes: of the quantized layers.
        names: of all linear layers; those without a scheme are unquantized.

    Raises:
        ExportError: naming such layers, and how to search for a plan without them.
    """
    unequal = [group for group in fused_groups(names) if len({schemes.get(name) for name in group}) > 1]
    if not unequal:
        return
    shown = "; ".join(", ".join(f"{name} ({schemes.get(name, 'unquantized')})" for name in group) for group in unequal[:_SHOWN])
    more = f" and {len(unequal) - _SHOWN} more groups" if len(unequal) > _SHOWN else ""
    raise ExportError(
        f"vLLM fuses layers that have unequal schemes here: {shown}{more}; search again with --tie auto, "
        "or use --allow-unfused if only other programs will load it"
    )


def fused_groups(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """The groups among `names` that are fused, each with at least two members."""
    known = list(names)
    for members in FUSED:
        parents = dict.fromkeys(name.removesuffix(members[0]) for name in known if name.rpartition(".")[2] == members[0])
        for parent in parents:
            group = tuple(parent + member for member in members if parent + member in known)
            if len(group) > 1:
                yield group
