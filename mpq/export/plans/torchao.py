"""torchao: an `FqnToConfig` as JSON, which gives each linear layer its own weight-only configuration.

The format is that of torchao's `config_to_dict`: {"_type", "_version", "_data"} for each configuration, read back by `config_from_dict`
(`torchao/core/config.py`, read at version 0.18). `IntxWeightOnlyConfig` takes 2 to 8 bits, groups or whole rows, symmetric or not,
and runs on any device. torchao quantizes by itself, by rounding to nearest: its codes are not those of an artifact of mpq.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mpq.export.abilities import Abilities
from mpq.export.base import Options, Written
from mpq.export.plans.base import TextTarget, quantized, remarks, write_json
from mpq.export.source import Source
from mpq.formats.scheme import Scheme

_BITS = (2, 3, 4, 5, 6, 7, 8)


class TorchAO(TextTarget):
    """All integer schemes; unnamed layers stay unchanged."""

    ending = ".torchao.json"
    abilities = Abilities(bits=_BITS, asymmetric_bits=_BITS)

    def write(self, source: Source, output: Path, options: Options) -> Written:
        """Write one configuration per layer, and none for unquantized tensors."""
        layers: dict[str, Any] = {name: _settings(scheme) for name, scheme in quantized(source).items()}
        write_json(output, _typed("FqnToConfig", {"fqn_to_config": {**layers, "_default": None}}))
        use = f"use: quantize_(model, config_from_dict(json.load(open('{output.name}'))), filter_fn=None)"
        return Written(output, (*remarks(source), use))


def _settings(scheme: Scheme) -> dict[str, Any]:
    whole = scheme.group_size is None
    return _typed(
        "IntxWeightOnlyConfig",
        {
            "weight_dtype": {"_type": "torch.dtype", "_data": f"int{scheme.bits}"},
            "granularity": _typed("PerAxis", {"axis": 0}) if whole else _typed("PerGroup", {"group_size": scheme.group_size}),
            "mapping_type": {"_type": "MappingType", "_data": "SYMMETRIC" if scheme.symmetric else "ASYMMETRIC"},
        },
        version=2,
    )


def _typed(kind: str, data: dict[str, Any], *, version: int = 1) -> dict[str, Any]:
    return {"_type": kind, "_version": version, "_data": data}
