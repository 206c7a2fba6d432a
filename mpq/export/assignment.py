"""Assignments of other tools, read back: which scheme each layer takes.

Read are, told apart by their content:

    CSV           columns layer and bits, or layer and scheme; optionally group_size and symmetric
    AutoRound     layer_config as JSON; also the quantization_config of its checkpoints, with "extra_config"
    GPTQModel     quantize_config.json with "dynamic"
    ModelOpt      a search state as JSON ("best" with "recipe"), or a configuration or recipe with "quant_cfg", JSON or YAML

Sixteen bits are fp16, or bf16 where the layer is. Formats that mpq lacks are read as integers of as many bits, so that assignments can be
compared: FP8 as int8, NVFP4 as int4-g16, MXFP4 as int4-g32.
"""

from __future__ import annotations

import csv
import fnmatch
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from mpq.errors import FormatError, MpqError
from mpq.records.layer import Layer
from mpq.schemes import Scheme, parse_scheme

Found = dict[str, Scheme]
_PRESET = re.compile(r"W(\d+)A\d+", re.IGNORECASE)
_RECIPES = (
    ("NVFP4", "int4-g16"),
    ("MXFP4", "int4-g32"),
    ("FP8", "int8"),
    ("INT4", "int4-g128"),
    ("W4A8", "int4-g128"),
    ("INT8", "int8"),
    ("NONE", "fp16"),
)
_REGEX_MARKS = frozenset("*^$|()[]?+\\")
_TRUE = {"1", "true", "yes", ""}


def read_assignment(path: Path, layers: Iterable[Layer]) -> Found:
    """The schemes that a file of another tool gives to `layers`, in their order; layers that it does not name are left out.

    Raises:
        FormatError: if the file cannot be read, is of no known format, or names a layer that is not among `layers`.
    """
    listed = list(layers)
    known = _Names(listed)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"cannot read {path}: {error}") from error
    try:
        found = _from_csv(text, known) if path.suffix.lower() == ".csv" else _from_data(_parsed(text), known)
    except MpqError as error:
        raise FormatError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, re.error, yaml.YAMLError) as error:
        raise FormatError(f"{path} cannot be read as an assignment ({type(error).__name__}: {' '.join(str(error).split())})") from error
    if not found:
        raise FormatError(f"{path} assigns nothing to the layers of this analysis: is it of the same model?")
    return {layer.name: _own_sixteen(found[layer.name], layer) for layer in listed if layer.name in found}


class _Names:
    """The layers by every name that they go by."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.order = [layer.name for layer in layers]
        self._canonical = {name.removesuffix(".weight"): layer.name for layer in layers for name in (layer.name, *layer.parameters)}

    def one(self, name: str) -> str:
        """The layer called `name`."""
        found = self._canonical.get(name.removesuffix(".weight"))
        if found is None:
            close = get_close_matches(name, self._canonical, n=1, cutoff=0.0)
            raise FormatError(f"there is no layer '{name}'" + (f": did you mean '{close[0]}'?" if close else ""))
        return found

    def matching(self, matches: Callable[[str], object], text: str) -> list[str]:
        """The layers for which `matches` holds; `text` is what the file says."""
        found = list(dict.fromkeys(layer for name, layer in self._canonical.items() if matches(name)))
        if not found:
            raise FormatError(f"'{text}' matches no layer")
        return found


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return yaml.safe_load(text)


def _from_data(data: Any, known: _Names) -> Found:
    if not isinstance(data, dict):
        raise FormatError("expected a mapping: a layer_config, a quantize_config, or a recipe")
    if "quantize" in data or "quant_cfg" in data:
        return _from_quantizers((data.get("quantize") or data)["quant_cfg"], known)
    if "best" in data:
        return _from_search_state(data, known)
    if "dynamic" in data:
        return _from_dynamic(data, known)
    if "extra_config" in data:
        base = {name: _settings(data) for name in known.order}
        return base | _from_layer_config(data["extra_config"], known, base=data)
    return _from_layer_config(data, known, base={})


def _from_csv(text: str, known: _Names) -> Found:
    rows = list(csv.DictReader(text.splitlines(), skipinitialspace=True))
    if not rows or "layer" not in rows[0] or not {"bits", "scheme"} & set(rows[0]):
        raise FormatError("a CSV needs a first line with the columns layer and bits, or layer and scheme")
    found = {}
    for row in rows:
        text = str(row.get("scheme") or row["bits"]).strip()
        if not text.isdigit():
            found[known.one(row["layer"])] = parse_scheme(text)
            continue
        symmetric = str(row.get("symmetric") or "").strip().lower() in _TRUE
        found[known.one(row["layer"])] = _scheme(int(text), int(row.get("group_size") or -1), symmetric=symmetric)
    return found


def _from_layer_config(config: Mapping[str, Any], known: _Names, *, base: Mapping[str, Any]) -> Found:
    found: Found = {}
    for name, entry in config.items():
        if _PRESET.fullmatch(str(entry)):
            entry = {"bits": int(_PRESET.fullmatch(str(entry))[1]), "group_size": 128}  # type: ignore[index]
        if not isinstance(entry, Mapping):
            raise FormatError(f"'{name}' is given {entry!r}: expected bits and group_size")
        names = [known.one(name)] if not _REGEX_MARKS & set(name) else known.matching(_expression(name), name)
        found |= dict.fromkeys(names, _settings({**base, **entry}))
    return found


def _from_dynamic(config: Mapping[str, Any], known: _Names) -> Found:
    found = {name: _settings(config) for name in known.order}
    done: set[str] = set()
    for text, entry in sorted((config["dynamic"] or {}).items(), key=lambda item: not item[0].startswith("-:")):
        expression = re.compile(text.removeprefix("-:").removeprefix("+:"))
        skipped = text.startswith("-:")
        for name in (name for name in known.order if name not in done and expression.match(name)):
            found[name] = Scheme("fp16") if skipped else _settings({**config, **entry})
            done.add(name)
    return found


def _from_quantizers(entries: Any, known: _Names) -> Found:
    """Entries in order, the last match wins; layers that end up disabled are fp16."""
    found = {name: Scheme("fp16") for name in known.order}
    listed = entries if isinstance(entries, list) else [{"quantizer_name": name, "cfg": cfg} for name, cfg in entries.items()]
    for entry in listed:
        pattern, cfg = entry["quantizer_name"], entry.get("cfg")
        for name in (name for name in known.order if fnmatch.fnmatchcase(f"{name}.weight_quantizer", pattern)):
            found[name] = Scheme("fp16") if entry.get("enable") is False or cfg is None else _quantizer(cfg)
    return found


def _from_search_state(data: Mapping[str, Any], known: _Names) -> Found:
    found: Found = {}
    for name, recipe in data["best"]["recipe"].items():
        label = str(recipe).upper()
        text = next((scheme for mark, scheme in _RECIPES if mark in label), None)
        if text is None:
            raise FormatError(f"'{name}' takes '{recipe}', which mpq cannot name: use a CSV of layer,scheme")
        members = (data.get("candidate_stats") or {}).get(name, {}).get("module_names") or [name.removesuffix(".quant_recipe")]
        found |= {known.one(member): parse_scheme(text) for member in members}
    return found


def _quantizer(cfg: Mapping[str, Any]) -> Scheme:
    bits, blocks = cfg["num_bits"], cfg.get("block_sizes") or {}
    if not isinstance(bits, int):  # exponent and mantissa, as [4, 3] or "e4m3"
        digits = [int(digit) for digit in (re.findall(r"\d+", bits) if isinstance(bits, str) else bits)]
        bits = 1 + sum(digits)
    return _scheme(bits, int(blocks.get("-1", blocks.get(-1, -1))), symmetric=True)


def _settings(entry: Mapping[str, Any]) -> Scheme:
    return _scheme(int(entry["bits"]), int(entry.get("group_size", -1)), symmetric=bool(entry.get("sym", True)))


def _scheme(bits: int, group_size: int, *, symmetric: bool) -> Scheme:
    if bits >= 16:
        return Scheme("fp16" if bits == 16 else "fp32")
    return Scheme(f"int{bits}", group_size if group_size > 0 else None, symmetric)


def _own_sixteen(scheme: Scheme, layer: Layer) -> Scheme:
    return Scheme("bf16") if scheme.format == "fp16" and layer.dtype == "bfloat16" else scheme


def _expression(text: str) -> Callable[[str], object]:
    """AutoRound's reading of a partial name: a regular expression found anywhere, its bare dots literal."""
    pattern = re.compile(re.sub(r"(?<!\\)\.(?!\*)", r"\\.", text))
    return pattern.search
