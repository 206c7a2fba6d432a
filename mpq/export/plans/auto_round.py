"""AutoRound: a layer_config, one entry per layer.

Full layer names are matched literally. Unnamed layers use the program's own scheme, so every layer is named. Format: AutoRound's
step_by_step.md, "Mixed Bits Usage", read at version 0.16.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mpq.export.abilities import Abilities
from mpq.export.base import Options, Written
from mpq.export.plans.base import TextTarget, group_size, kept, quantized, remarks, write_json
from mpq.export.source import Source
from mpq.formats.scheme import Scheme

_FLOAT = {"bits": 16, "data_type": "float"}


class AutoRound(TextTarget):
    """Bits 2, 3, 4 and 8, with or without zero points."""

    ending = ".layer_config.json"
    abilities = Abilities(bits=(2, 3, 4, 8), asymmetric_bits=(2, 3, 4, 8))

    def write(self, source: Source, output: Path, options: Options) -> Written:
        """Write one entry per layer; floating-point layers as 16 bits."""
        config: dict[str, Any] = {name: _entry(scheme) for name, scheme in quantized(source).items()}
        write_json(output, config | {name: dict(_FLOAT) for name in kept(source)})
        use = f"use: AutoRound(model, layer_config=json.load(open('{output.name}'))).quantize_and_save(folder, format='auto_round')"
        return Written(output, (*remarks(source), use))


def _entry(scheme: Scheme) -> dict[str, Any]:
    return {"bits": scheme.bits, "group_size": group_size(scheme), "sym": scheme.symmetric, "data_type": "int", "act_bits": 16}
