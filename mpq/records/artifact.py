"""What the header of an artifact says, and how many bytes of the file no scheme changes. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpq.errors import FormatError, MpqError, SchemeError
from mpq.files import check_version
from mpq.limits import SAFETENSORS_HEADER_BYTES
from mpq.records.layer import Layer, layer_from_dict
from mpq.records.layout import TensorEntry, header_length
from mpq.records.sensitivity import Rest
from mpq.schemes import PARTS, Scheme, parse_scheme

VERSION = 1
PROGRAM = "mpq.program"  # the compressed program of a torch.export source, as a tensor of bytes
_STORED_FACTS = ("parameters", "shape", "axes", "dtype")


@dataclass(frozen=True)
class ArtifactHeader:
    """What an artifact says of itself.

    Args:
        model: path, sha256, kind and, for a state dict, factory of the source.
        quantizer: what chose the codes.
        layers: the quantized layers, in model order.
        schemes: scheme by layer name.
        aliases: other state-dict names of tied tensors -> the name they are stored under.
        config: what rebuilds a Hugging Face model without its folder; empty otherwise.
        corrected: whether biases and batch-norm statistics were corrected after quantization.
        tuned: whether scales, codes and vectors were tuned after that.
        sequential: whether codes were chosen one layer after another, before both.
    """

    model: dict[str, Any]
    quantizer: str
    layers: tuple[Layer, ...]
    schemes: dict[str, Scheme]
    aliases: dict[str, str]
    config: dict[str, Any]
    corrected: bool = False
    tuned: bool = False
    sequential: bool = False

    def to_metadata(self) -> dict[str, Any]:
        """The JSON object under the header's key "mpq"."""
        layers = {layer.name: {"scheme": str(self.schemes[layer.name]), **_facts(layer)} for layer in self.layers}
        amended = self.corrected + 2 * self.tuned + 4 * self.sequential
        return _metadata(self.model, self.quantizer, layers, self.aliases, self.config, amended=amended)


def rest_of(
    layers: Sequence[Layer],
    entries: Iterable[TensorEntry],
    *,
    model: Mapping[str, Any],
    quantizer: str,
    aliases: Mapping[str, str],
    config: Mapping[str, Any],
    weights: int,
    original_bytes: int,
) -> Rest:
    """The constant part of an artifact: `entries` are its unquantized tensors, `weights` the parameters among them."""
    stored = list(entries)
    bare = _metadata(model, quantizer, {layer.name: {"scheme": "", **_facts(layer)} for layer in layers}, aliases, config)
    return Rest(header_length(stored, bare), sum(e.stored.bytes for e in stored), weights, original_bytes)


def is_artifact(path: Path) -> bool:
    """Whether the file is a safetensors file that mpq wrote."""
    try:
        return _text(path) is not None
    except MpqError:
        return False


def read_artifact_header(path: Path) -> ArtifactHeader:
    """The header of an artifact; the tensors are not read.

    Raises:
        FormatError: if the file is missing, damaged, not an artifact, or from a newer version.
    """
    text = _text(path)
    if text is None:
        raise FormatError(f"{path} is a safetensors file, but not one that mpq wrote: make one with `mpq apply`")
    try:
        data = json.loads(text)
        check_version(data.get("version"), supported=VERSION, path=path, kind="an artifact")
        layers = tuple(
            layer_from_dict({"name": name, **{key: item[key] for key in _STORED_FACTS}}) for name, item in data["layers"].items()
        )
        schemes = {name: parse_scheme(item["scheme"]) for name, item in data["layers"].items()}
        amended = int(data.get("corrected", 0))
        facts = data["model"], data["quantizer"], layers, schemes, data["aliases"], data["config"]
        return ArtifactHeader(*facts, corrected=bool(amended & 1), tuned=bool(amended & 2), sequential=bool(amended & 4))
    except (KeyError, TypeError, ValueError, AttributeError, SchemeError) as error:
        raise FormatError(f"{path} has a damaged header ({type(error).__name__}: {error}): run `mpq apply` again") from error


def read_rest_bytes(path: Path, header: ArtifactHeader) -> int:
    """Bytes of the tensors that no scheme changed, without the program; `header` is that of the file."""
    left_out = {f"{layer.name}.{part}" for layer in header.layers for part in PARTS} | {PROGRAM, "__metadata__"}
    places = [item["data_offsets"] for name, item in _raw_header(path).items() if name not in left_out]
    return sum(int(end) - int(start) for start, end in places)


def _metadata(
    model: Mapping[str, Any],
    quantizer: str,
    layers: Mapping[str, Any],
    aliases: Mapping[str, str],
    config: Mapping[str, Any],
    *,
    amended: int = 0,
) -> dict[str, Any]:
    return {
        "version": VERSION,
        "model": dict(model),
        "quantizer": quantizer,
        "corrected": amended,  # one digit, so that the size does not depend on it
        "aliases": dict(aliases),
        "config": dict(config),
        "layers": dict(layers),
    }


def _facts(layer: Layer) -> dict[str, Any]:
    return {key: value for key, value in layer.to_dict().items() if key in _STORED_FACTS}


def _text(path: Path) -> str | None:
    """What mpq wrote into the header, as JSON; None in a safetensors file of something else."""
    metadata = _raw_header(path).get("__metadata__")
    return metadata.get("mpq") if isinstance(metadata, dict) else None


def _raw_header(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            raw = file.read(length) if 2 <= length <= min(size, SAFETENSORS_HEADER_BYTES) else b""
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not a safetensors file, or is cut off: make it again with `mpq apply`") from error
    if not isinstance(header, dict):
        raise FormatError(f"{path} is not a safetensors file")
    _check_length(header, 8 + length, size, path)
    return header


def _check_length(header: Mapping[str, Any], start: int, size: int, path: Path) -> None:
    """Refuse a file that is shorter or longer than its header says; `start` is where its data begins."""
    try:
        whole = start + max((int(part["data_offsets"][1]) for name, part in header.items() if name != "__metadata__"), default=0)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise FormatError(f"{path} has a damaged header ({type(error).__name__}: {error}): run `mpq apply` again") from error
    if size != whole:
        raise FormatError(f"{path} has {size:,} bytes where its header says {whole:,}: it is cut off, make it again with `mpq apply`")
