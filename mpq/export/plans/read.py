"""Assignments of other tools, read back: which scheme each layer takes.

Supported files, recognized by their content:

    CSV           columns layer and bits, or layer and scheme; optionally group_size and symmetric
    AutoRound     layer_config as JSON; also the quantization_config of its checkpoints, with "extra_config"
    GPTQModel     quantize_config.json with "dynamic"
    ModelOpt      a search state as JSON ("best" with "recipe"), or a configuration or recipe with "quant_cfg", JSON or YAML

Sixteen bits are fp16, or bf16 where the layer is. Formats that mpq lacks are read as integers of as many bits, so that assignments can be
compared: FP8 as int8, NVFP4 as int4-g16, MXFP4 as int4-g32.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from mpq.errors import FormatError, MpqError
from mpq.export.plans.assignment_file import (
    Candidate,
    Checkpoint,
    Dynamic,
    LayerConfig,
    Quantizer,
    QuantizerConfig,
    QuantizerEntry,
    Recipe,
    SearchState,
    Settings,
)
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.limits import SHOWN_TEXT
from mpq.reading.documents import Document, csv_rows, json_value, read_text, yaml_document
from mpq.reading.expressions import Expression
from mpq.reading.validate import validated
from mpq.records.layer import Layer
from mpq.shown import shown

Found = dict[str, Scheme]
_PRESET = re.compile(r"W([0-9]{1,2})A[0-9]{1,2}", re.IGNORECASE)
_DIGITS, _SHORT_DIGITS = re.compile(r"[0-9]{1,9}"), re.compile(r"[0-9]{1,2}")
_COMPARED = 200  # characters of an unknown name that are compared with known ones
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
    text = read_text(path, error=FormatError, absent="name an assignment of another tool")
    bare = Document(None, str(path), FormatError, "see `mpq search --help` for what is read")
    try:
        found = _from_csv(text, bare, known) if path.suffix.lower() == ".csv" else _from_data(_parsed(text, bare), known)
    except MpqError as error:
        raise FormatError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error
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
            close = get_close_matches(name[:_COMPARED], self._canonical, n=1, cutoff=0.0)
            raise FormatError(f"there is no layer {shown(name)}" + (f": did you mean {shown(close[0])}?" if close else ""))
        return found

    def matching(self, matches: Callable[[str], object], text: str) -> list[str]:
        """The layers for which `matches` holds; `text` is what the file says."""
        found = list(dict.fromkeys(layer for name, layer in self._canonical.items() if matches(name)))
        if not found:
            raise FormatError(f"{shown(text)} matches no layer")
        return found


def _parsed(text: str, bare: Document) -> Document:
    try:
        value = json_value(text.encode())
    except ValueError:
        return yaml_document(text, name=bare.name, error=bare.error, remedy=bare.remedy)
    return replace(bare, value=value)


def _from_data(document: Document, known: _Names) -> Found:
    data = document.value
    if not isinstance(data, dict):
        raise FormatError("expected a mapping: a layer_config, a quantize_config, or a recipe")
    if "quantize" in data:
        return _from_quantizers(validated(document, Recipe).quantize, known)
    if "quant_cfg" in data:
        return _from_quantizers(validated(document, QuantizerConfig), known)
    if "best" in data:
        return _from_search_state(validated(document, SearchState), known)
    if "dynamic" in data:
        return _from_dynamic(validated(document, Dynamic), known)
    if "extra_config" in data:
        base = validated(document, Checkpoint)
        return {name: _settings(base) for name in known.order} | _from_layer_config(base.extra_config, known, base=base)
    return _from_layer_config(validated(document, LayerConfig), known, base=Settings())


def _from_csv(text: str, bare: Document, known: _Names) -> Found:
    rows = list(csv_rows(text, bare))
    if not rows or "layer" not in rows[0][1] or not {"bits", "scheme"} & set(rows[0][1]):
        raise FormatError("a CSV needs a first line with the columns layer and bits, or layer and scheme")
    found = {}
    for line, row in rows:
        try:
            found[known.one(row["layer"])] = _from_row(row)
        except MpqError as error:
            raise FormatError(f"{bare.name}, line {line}: {error}") from error
    return found


def _from_row(row: Mapping[str, str]) -> Scheme:
    text = row.get("scheme") or row.get("bits", "")
    if not _DIGITS.fullmatch(text):
        return parse_scheme(text[:SHOWN_TEXT])
    group = row.get("group_size") or "-1"
    if not _DIGITS.fullmatch(group.removeprefix("-")):
        raise FormatError(f"group_size is {shown(group)}: give a whole number")
    return _scheme(int(text), int(group), symmetric=row.get("symmetric", "").lower() in _TRUE)


def _from_layer_config(config: LayerConfig, known: _Names, *, base: Settings) -> Found:
    found: Found = {}
    for name, entry in config.items():
        preset = _PRESET.fullmatch(entry) if isinstance(entry, str) else None
        if isinstance(entry, str) and preset is None:
            raise FormatError(f"{shown(name)} is given {shown(entry)}: expected bits and group_size")
        wanted = entry if isinstance(entry, Settings) else Settings(int(preset[1]), 128)  # type: ignore[index]
        names = [known.one(name)] if not _REGEX_MARKS & set(name) else known.matching(_expression(name), name)
        found |= dict.fromkeys(names, _settings(wanted, base))
    return found


def _from_dynamic(config: Dynamic, known: _Names) -> Found:
    found = {name: _settings(config) for name in known.order}
    done: set[str] = set()
    for text, entry in sorted((config.dynamic or {}).items(), key=lambda item: not item[0].startswith("-:")):
        pattern = Expression(text.removeprefix("-:").removeprefix("+:"), error=FormatError)
        skipped = text.startswith("-:")
        for name in (name for name in known.order if name not in done and pattern.match(name)):
            found[name] = Scheme("fp16") if skipped else _settings(entry or Settings(), config)
            done.add(name)
    return found


def _from_quantizers(config: QuantizerConfig, known: _Names) -> Found:
    """Entries in order, the last match wins; layers that end up disabled are fp16."""
    found = {name: Scheme("fp16") for name in known.order}
    entries = config.quant_cfg
    listed = entries if isinstance(entries, list) else [QuantizerEntry(name, cfg) for name, cfg in entries.items()]
    for entry in listed:
        for name in (name for name in known.order if fnmatch.fnmatchcase(f"{name}.weight_quantizer", entry.quantizer_name)):
            found[name] = Scheme("fp16") if entry.enable is False or entry.cfg is None else _quantizer(entry.cfg)
    return found


def _from_search_state(state: SearchState, known: _Names) -> Found:
    found: Found = {}
    for name, recipe in state.best.recipe.items():
        label = recipe.upper()
        text = next((scheme for mark, scheme in _RECIPES if mark in label), None)
        if text is None:
            raise FormatError(f"{shown(name)} uses {shown(recipe)}, which mpq has no name for: use a CSV of layer,scheme")
        members = (state.candidate_stats or {}).get(name, Candidate()).module_names or [name.removesuffix(".quant_recipe")]
        found |= {known.one(member): parse_scheme(text) for member in members}
    return found


def _quantizer(cfg: Quantizer) -> Scheme:
    bits, group = cfg.num_bits, (cfg.block_sizes or {}).get("-1", -1)
    if not isinstance(bits, int):  # exponent and mantissa, as [4, 3] or "e4m3"
        digits = [int(digit) for digit in _SHORT_DIGITS.findall(bits)] if isinstance(bits, str) else bits
        bits = 1 + sum(digits)
    if not isinstance(group, int):
        raise FormatError(f"block_sizes of -1 is {shown(group)}: give a whole number")
    return _scheme(bits, group, symmetric=True)


def _settings(entry: Settings, base: Settings | None = None) -> Scheme:
    """The scheme of an entry; missing settings come from `base`."""
    base = base or Settings()
    bits = entry.bits if entry.bits is not None else base.bits
    if bits is None:
        raise FormatError("an entry lacks bits: give a whole number")
    group = entry.group_size if entry.group_size is not None else base.group_size
    symmetric = entry.sym if entry.sym is not None else base.sym
    return _scheme(bits, -1 if group is None else group, symmetric=symmetric is not False)


def _scheme(bits: int, group_size: int, *, symmetric: bool) -> Scheme:
    if bits >= 16:
        return Scheme("fp16" if bits == 16 else "fp32")
    return Scheme(f"int{bits}", group_size if group_size > 0 else None, symmetric)


def _own_sixteen(scheme: Scheme, layer: Layer) -> Scheme:
    return Scheme("bf16") if scheme.format == "fp16" and layer.dtype == "bfloat16" else scheme


def _expression(text: str) -> Callable[[str], object]:
    """AutoRound's reading of a partial name: a regular expression found anywhere, its bare dots literal."""
    return Expression(re.sub(r"(?<!\\)\.(?!\*)", r"\\.", text), error=FormatError).search
