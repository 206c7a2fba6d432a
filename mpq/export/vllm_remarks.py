"""Requirements of vLLM for packed weights in addition to those of Transformers, from the source of version 0.32.

`compressed_tensors/compressed_tensors.py` treats static, symmetric integers per channel or per group, without quantized inputs, as WNA16;
on CUDA that is Marlin, for 4 and 8 bits in groups of 32, 64, 128 or whole rows (`kernels/linear/mixed_precision/marlin.py`), on a CPU 4
bits only (`cpu.py`). 32-bit words contain whole codes of one row. Fused layers must share their scheme, and be all in or all out
(`should_ignore_layer`). A head may be packed (`get_quant_method`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mpq.formats.scheme import Scheme
from mpq.records.fused_layers import fused_groups
from mpq.shown import listed

_HEAD = "lm_head"
_WORD = 32
_SHOWN = 3


def remarks(schemes: Mapping[str, Scheme], columns: Mapping[str, int], linear: Iterable[str]) -> list[str]:
    """Remarks on loading a folder in vLLM.

    Args:
        schemes: schemes of the packed modules.
        columns: row lengths of the packed modules.
        linear: names of all linear modules.
    """
    ragged = [name for name, scheme in schemes.items() if columns[name] * scheme.bits % _WORD]
    unequal = [group[0] for group in fused_groups(linear) if len({schemes.get(name) for name in group}) > 1]
    found = (
        [f"each 32-bit word holds codes of one row only, and rows of {listed(ragged, _SHOWN)} do not fill whole words"] if ragged else []
    )
    found += [f"it fuses layers that have unequal schemes here, with {listed(unequal, _SHOWN)}"] if unequal else []
    notes = [f"loads in Transformers, not in vLLM: {'; '.join(found)}"] if found else []
    heads = [name for name in schemes if name.rpartition(".")[2] == _HEAD]
    if heads and not found:
        notes.append(f"vLLM 0.32 reads a packed {heads[0]}; for versions that do not, leave it out: mpq analyze --ignore {heads[0]}")
    return notes
