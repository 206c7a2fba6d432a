"""The header of an artifact, and the bytes of the file that do not depend on the schemes. No torch."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mpq.errors import FormatError, MpqError
from mpq.files import check_version, open_file
from mpq.formats.scheme import Scheme
from mpq.formats.stored import PARTS
from mpq.limits import HEADER_BYTES
from mpq.reading.documents import Document, json_document
from mpq.reading.validate import validated
from mpq.records.activations import Groups, groups_in, to_dict
from mpq.records.artifact_file import VERSION, MetadataFacts, Tensors, check_parts, check_tensors
from mpq.records.artifact_layout import TensorEntry, header, header_length, padded_length, written_length
from mpq.records.facts import layers_in, scheme_in
from mpq.records.layer import Layer
from mpq.records.sensitivity_header import Rest
from mpq.records.stored_sketches import StoredSketches, stored_in
from mpq.shown import shown

PROGRAM = "mpq.program"  # the compressed program of a torch.export source, as a tensor of bytes
_DIGITS = {"sequential": 4, "bias_correction": 1, "tuning": 2}  # earlier versions wrote their sum as "corrected"
_REMEDY = "run `mpq apply` again"
_LEAST_DIGEST = 2  # bytes; fewer are equal too often by chance
_STORED_FACTS = ("parameters", "shape", "axes", "dtype", "groups", "alike")


@dataclass(frozen=True)
class ArtifactHeader:
    """The facts in an artifact's header.

    Args:
        model: path, sha256, kind and, for a state dict, factory of the source.
        quantizer: what chose the codes.
        layers: the quantized layers, in model order.
        schemes: scheme by layer name.
        aliases: other state-dict names of tied tensors -> the name they are stored under.
        config: what rebuilds a Hugging Face model without its folder; empty otherwise.
        recovery: names of the steps of recovery whose changes the artifact holds, in order.
        stopped: names of the steps that ran out of time, kept or not; the result may differ on another machine.
        rest_dtype: dtype for unquantized floating-point tensors where it is smaller than their own; None for their own dtypes.
        rest_bytes: bytes of these tensors in the model; only with `rest_dtype`.
        digests: the fingerprint: the beginning of a digest of the dequantized weights of each layer, in order, then one of all other
            tensors; of one length, in what room the header has. Empty where there is none.
        activations: groups of tensors between layers that are integers, by name.
        sketches: of the calibration data, for `mpq monitor`; None if there are none.
    """

    model: dict[str, Any]
    quantizer: str
    layers: tuple[Layer, ...]
    schemes: dict[str, Scheme]
    aliases: dict[str, str]
    config: dict[str, Any]
    recovery: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()
    rest_dtype: str | None = None
    rest_bytes: int = 0
    digests: tuple[bytes, ...] = ()
    activations: Groups = field(default_factory=dict)
    sketches: StoredSketches | None = None

    def to_metadata(self) -> dict[str, Any]:
        """The JSON object under the header's key "mpq"."""
        layers = {layer.name: {"scheme": str(self.schemes[layer.name]), **_facts(layer)} for layer in self.layers}
        return _metadata(
            self.model,
            self.quantizer,
            layers,
            self.aliases,
            self.config,
            recovery=self.recovery,
            stopped=self.stopped,
            rest=_rest_facts(self.rest_dtype, self.rest_bytes),
            digests=self.digests,
            activations=self.activations,
            sketches=self.sketches,
        )

    def with_digests(self, digests: Sequence[bytes], entries: Iterable[TensorEntry]) -> ArtifactHeader:
        """The same with a fingerprint, each digest cut to what fits into the header's predicted bytes; without, if nothing useful does."""
        known = list(entries)
        predicted = padded_length(header_length(known, replace(self, recovery=(), stopped=(), digests=()).to_metadata()))
        size = len(digests[0]) if digests else 0
        while size >= _LEAST_DIGEST:
            cut = replace(self, digests=tuple(digest[:size] for digest in digests))
            if written_length(known, cut.to_metadata()) <= predicted:
                return cut
            size -= 1
        return replace(self, digests=())

    def first_bytes(self, entries: Iterable[TensorEntry]) -> bytes:
        """The first bytes of the file, up to its tensors. Their number does not depend on the recovery steps, which a plan cannot know.

        Raises:
            ApplyError: if the names of the steps do not fit.
        """
        known = list(entries)
        predicted = header_length(known, replace(self, recovery=(), stopped=(), digests=()).to_metadata())
        return header(known, self.to_metadata(), length=predicted)


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
    dtype: str | None = None,
) -> Rest:
    """The constant part of an artifact: `entries` are its unquantized tensors as they are stored, `weights` the parameters among them."""
    stored, rest = list(entries), _rest_facts(dtype, original_bytes)
    bare = _metadata(model, quantizer, {layer.name: {"scheme": "", **_facts(layer)} for layer in layers}, aliases, config, rest=rest)
    return Rest(header_length(stored, bare), sum(e.stored.bytes for e in stored), weights, original_bytes, dtype)


def is_artifact(path: Path) -> bool:
    """Whether the file is a safetensors file that mpq wrote."""
    try:
        return _text(_opened(path)[0]) is not None
    except MpqError:
        return False


def read_artifact_header(path: Path) -> ArtifactHeader:
    """The header of an artifact; the tensors are not read.

    Raises:
        FormatError: if the file is missing, damaged, not an artifact, or from a newer version.
    """
    document, tensors = _opened(path)
    text = _text(document)
    if text is None:
        raise FormatError(f"{path} is a safetensors file, but not one that mpq wrote: create one with `mpq apply`")
    said = json_document(text.encode(), name=document.name, error=FormatError, remedy=_REMEDY)
    if not isinstance(said.value, dict):
        raise said.refuse(f"it is {shown(said.value)}: give a mapping; {_REMEDY}")
    check_version(said.value.get("version"), supported=VERSION, path=path, kind="an artifact")
    file = validated(said, MetadataFacts)
    layers = layers_in(said, ((name, facts, ("layers", name)) for name, facts in file.layers.items()))
    schemes = {name: scheme_in(said, facts.scheme, "layers", name) for name, facts in file.layers.items()}
    for layer in layers:
        check_parts(said, layer.name, schemes[layer.name].stored(layer.matrix), tensors)
    facts = said.value["model"], file.quantizer, layers, schemes, file.aliases, file.config
    dtype, original_bytes = (None, 0) if file.rest is None else (file.rest.dtype, file.rest.original_bytes)
    digests = _digests(file.fingerprint, len(layers) + 1)
    activations, sketches = groups_in(said, file.activations), None if file.sketches is None else stored_in(said, file.sketches, schemes)
    return ArtifactHeader(*facts, _recovery(file), tuple(file.stopped), dtype, original_bytes, digests, activations, sketches)


def read_rest_bytes(path: Path, header: ArtifactHeader) -> int:
    """Bytes that the unquantized tensors take in the model, without the program.

    Args:
        path: a file of the artifact.
        header: of the whole artifact, whose other files may hold some of its layers.
    """
    if header.rest_dtype is not None:
        return read_artifact_header(path).rest_bytes
    left_out = {f"{layer.name}.{part}" for layer in header.layers for part in PARTS} | {PROGRAM}
    places = [facts.data_offsets for name, facts in _opened(path)[1].items() if name not in left_out]
    return sum(end - start for start, end in places)


def holds_program(path: Path) -> bool:
    """Whether a file of an artifact carries the program of its torch.export source.

    Raises:
        FormatError: if it is missing or damaged.
    """
    return PROGRAM in _opened(path)[1]


def _metadata(
    model: Mapping[str, Any],
    quantizer: str,
    layers: Mapping[str, Any],
    aliases: Mapping[str, str],
    config: Mapping[str, Any],
    *,
    recovery: Sequence[str] = (),
    stopped: Sequence[str] = (),
    rest: Mapping[str, Any] | None = None,
    digests: Sequence[bytes] = (),
    activations: Groups | None = None,
    sketches: StoredSketches | None = None,
) -> dict[str, Any]:
    return {
        "version": VERSION,
        "model": dict(model),
        "quantizer": quantizer,
        "recovery": list(recovery),  # an empty list is as long as `"corrected":0` of earlier versions, so sizes in older plans stay right
        **({"stopped": list(stopped)} if stopped else {}),
        **({"rest": dict(rest)} if rest else {}),
        **({"fingerprint": base64.b64encode(b"".join(digests)).decode()} if digests else {}),
        **({"activations": to_dict(activations)} if activations else {}),
        **({"sketches": sketches.to_dict()} if sketches is not None else {}),
        "aliases": dict(aliases),
        "config": dict(config),
        "layers": dict(layers),
    }


def _rest_facts(dtype: str | None, original_bytes: int) -> dict[str, Any] | None:
    return None if dtype is None else {"dtype": dtype, "original_bytes": original_bytes}


def _digests(text: str, count: int) -> tuple[bytes, ...]:
    """The digests of a fingerprint; none if it is not one."""
    try:
        whole = base64.b64decode(text, validate=True)
    except ValueError:
        return ()
    size, left = divmod(len(whole), count)
    return () if left or not size else tuple(whole[first : first + size] for first in range(0, len(whole), size))


def _recovery(file: MetadataFacts) -> tuple[str, ...]:
    """The steps of recovery; earlier versions wrote them as a sum of numbers."""
    if file.recovery is not None:
        return tuple(file.recovery)
    return tuple(name for name, value in _DIGITS.items() if int(file.corrected) & value)


def _facts(layer: Layer) -> dict[str, Any]:
    return {key: value for key, value in layer.to_dict().items() if key in _STORED_FACTS}


def _text(document: Document) -> str | None:
    """The JSON that mpq wrote into the header; None for any other safetensors file."""
    metadata = document.value.get("__metadata__")
    found = metadata.get("mpq") if isinstance(metadata, dict) else None
    return found if isinstance(found, str) else None


def _opened(path: Path) -> tuple[Document, Tensors]:
    """The header of a safetensors file, after checking its size, and the tensors in it.

    Raises:
        FormatError: if it cannot be read, is damaged, or is cut off.
    """
    try:
        size = path.stat().st_size
        with open_file(path) as file:
            length = int.from_bytes(file.read(8), "little")
            raw = file.read(length) if 2 <= length <= min(size - 8, HEADER_BYTES) else b""
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}; name an artifact, as `mpq apply` writes it") from error
    except ValueError as error:
        raise FormatError(f"cannot read {shown(str(path))}: it is not a file name") from error
    if not raw.startswith(b"{"):
        raise FormatError(f"{path} is not a safetensors file, or is cut off: write it again with `mpq apply`")
    document = json_document(raw, name=f"{path}, header", error=FormatError, remedy=_REMEDY)
    bare = replace(document, value={name: value for name, value in document.value.items() if name != "__metadata__"})
    tensors = validated(bare, Tensors)
    whole = 8 + length + check_tensors(bare, tensors)
    if size != whole:
        raise FormatError(f"{path} has {size:,} bytes where its header says {whole:,}: it is cut off, write it again with `mpq apply`")
    return document, tensors
