"""Refuses layers that vLLM fuses into one product if their schemes differ, because vLLM refuses them too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mpq.export.abilities import ExportError
from mpq.formats.scheme import Scheme
from mpq.records.fused_layers import fused_groups

_SHOWN = 2


def check_fused(schemes: Mapping[str, Scheme], names: Iterable[str]) -> None:
    """Refuse fused layers with different schemes.

    Args:
        schemes: schemes of the quantized layers.
        names: names of all linear layers; those without a scheme are unquantized.

    Raises:
        ExportError: naming such layers, and how to search for a plan without them.
    """
    unequal = [group for group in fused_groups(names) if len({schemes.get(name) for name in group}) > 1]
    if not unequal:
        return
    shown = "; ".join(", ".join(f"{name} ({schemes.get(name, 'unquantized')})" for name in group) for group in unequal[:_SHOWN])
    more = f" and {len(unequal) - _SHOWN} more groups" if len(unequal) > _SHOWN else ""
    raise ExportError(
        f"vLLM fuses layers that have unequal schemes here: {shown}{more}; search again with --for compressed-tensors, "
        "or use --allow-unfused if only other programs will load it"
    )
