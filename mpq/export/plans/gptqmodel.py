"""GPTQModel: a quantize_config.json whose `dynamic` map gives each layer its bits and group size.

`dynamic` maps regular expressions to overrides of the base settings; "-:" before one leaves the layers out. Expressions of the form
^literal$ are looked up as names. Format: README of GPTQModel, "Dynamic Quantization", read at version 7.7.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mpq.export.abilities import Abilities
from mpq.export.base import Options, Written
from mpq.export.plans.base import TextTarget, group_size, kept, most_common, quantized, remarks, write_json
from mpq.export.source import Source
from mpq.formats.scheme import Scheme

_HEAD = "lm_head"


class GptqModel(TextTarget):
    """Bits 2, 3, 4 and 8; 5 to 7 exist only in one layout of the newest versions and are not written."""

    ending = ".quantize_config.json"
    abilities = Abilities(bits=(2, 3, 4, 8), asymmetric_bits=(2, 3, 4, 8))

    def write(self, source: Source, output: Path, options: Options) -> Written:
        """Write the base settings and one entry per layer that differs."""
        layers = quantized(source)
        base = most_common(layers, source.matrices)
        dynamic: dict[str, dict[str, Any]] = {f"-:^{re.escape(name)}$": {} for name in kept(source)}
        dynamic |= {f"+:^{re.escape(name)}$": _settings(scheme) for name, scheme in layers.items() if scheme != base}
        config = {
            **_settings(base),
            "dynamic": dynamic,
            "desc_act": False,
            "lm_head": _HEAD in layers,
            "method": "gptq",
            "quant_method": "gptq",
            "format": "gptq",
            "checkpoint_format": "gptq",
            "pack_dtype": "int32",
        }
        write_json(output, config)
        use = f"use: QuantizeConfig.from_quant_config(json.load(open('{output.name}'))), then GPTQModel.load(model, config).quantize(...)"
        return Written(output, (*remarks(source), use))


def _settings(scheme: Scheme) -> dict[str, Any]:
    return {"bits": scheme.bits, "group_size": group_size(scheme), "sym": scheme.symmetric}
