"""ModelOpt: a recipe in YAML that disables every quantizer, then enables one weight quantizer per layer.

Entries are applied in order, the last match wins. Format: ModelOpt's guide "Recipes", single file, inline, read at version 0.47.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mpq.export.abilities import Abilities
from mpq.export.base import Options, Written
from mpq.export.plans.base import TextTarget, quantized, remarks
from mpq.export.source import Source
from mpq.files import write_text
from mpq.formats.scheme import Scheme

_ANY = tuple(range(2, 9))
_SPECIAL = str.maketrans({"[": "[[]", "*": "[*]", "?": "[?]"})


class ModelOpt(TextTarget):
    """Symmetric integers of any width, per row or in blocks along a row."""

    ending = ".recipe.yaml"
    abilities = Abilities(bits=_ANY)

    def write(self, source: Source, output: Path, options: Options) -> Written:
        """Write the recipe."""
        entries: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
        entries += [
            {"quantizer_name": f"{name.translate(_SPECIAL)}.weight_quantizer", "enable": True, "cfg": _quantizer(scheme)}
            for name, scheme in quantized(source).items()
        ]
        recipe = {
            "metadata": {"recipe_type": "ptq", "description": f"Mixed-precision weights, from {source.path.name}."},
            "quantize": {"algorithm": "max", "quant_cfg": entries},
        }
        write_text(output, yaml.safe_dump(recipe, sort_keys=False, width=120))
        use = f"use: mtq.quantize(model, load_recipe('{output.name}').quantize, forward_loop)"
        return Written(output, (*[note for note in remarks(source) if "default" not in note], use))


def _quantizer(scheme: Scheme) -> dict[str, Any]:
    if scheme.group_size is None:
        return {"num_bits": scheme.bits, "axis": 0}
    return {"num_bits": scheme.bits, "block_sizes": {-1: scheme.group_size, "type": "static"}}
