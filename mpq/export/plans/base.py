"""The base of plans written as text: which layers another quantizer handles, its default scheme, and the layers that it must skip."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from mpq.export.abilities import ExportError
from mpq.export.base import Options, Target
from mpq.export.source import Source
from mpq.files import write_text
from mpq.formats.scheme import Scheme
from mpq.records.layer import Layer
from mpq.shown import listed

_SHOWN = 6
_EMBEDDINGS = ("wte", "wpe")


class TextTarget(Target):
    """A plan for a program that quantizes the model itself: no weights are written."""

    needs_weights = False

    def takes(self, name: str) -> bool:
        """Whether the layer is quantized: embeddings are not."""
        return not is_embedding(name)

    def stores(self, layer: Layer) -> bool:
        """The same of a layer."""
        return self.takes(layer.name)

    def check(self, source: Source, options: Options) -> None:
        """Refuse a plan with nothing to quantize.

        Raises:
            ExportError: if every layer is an embedding or stays in floating point.
        """
        if not quantized(source):
            raise ExportError(
                f"{source.path} has no layer that this target quantizes: embeddings and floating-point layers are not written"
            )


def quantized(source: Source) -> dict[str, Scheme]:
    """The layers that get integer codes, without embeddings, which these programs do not quantize."""
    return {name: scheme for name, scheme in source.schemes.items() if not scheme.is_float and not is_embedding(name)}


def kept(source: Source) -> list[str]:
    """The layers that stay in floating point, and the weights that the plan leaves out, if the source lists them."""
    floats = [name for name, scheme in source.schemes.items() if scheme.is_float and not is_embedding(name)]
    return floats + [name.removesuffix(".weight") for name in source.others or () if name.endswith(".weight") and not is_embedding(name)]


def is_embedding(name: str) -> bool:
    """Whether a layer is an embedding, by its name; plans do not say which operator uses a weight."""
    last = name.rpartition(".")[2]
    return "embed" in last or last in _EMBEDDINGS


def most_common(schemes: dict[str, Scheme], matrices: dict[str, tuple[int, int]]) -> Scheme:
    """The scheme of the most weights."""
    weights: Counter[Scheme] = Counter()
    for name, scheme in schemes.items():
        weights[scheme] += matrices[name][0] * matrices[name][1]
    return weights.most_common(1)[0][0]


def group_size(scheme: Scheme) -> int:
    """The group size in the notation of these programs: -1 for the whole row."""
    return -1 if scheme.group_size is None else scheme.group_size


def remarks(source: Source) -> list[str]:
    """Notes on layers of the plan that are not written, and on weights that the plan does not name."""
    left = [name for name, scheme in source.schemes.items() if is_embedding(name) and not scheme.is_float]
    kept = listed([f"{name} ({source.schemes[name]})" for name in left], _SHOWN)
    notes = [f"not quantized by this target: {kept}"] if left else []
    if source.others is None:
        notes.append(
            "weights that the plan does not name may take the program's default; export the artifact instead to exclude them by name"
        )
    return notes


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
