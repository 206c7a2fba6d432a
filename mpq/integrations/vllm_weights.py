"""The tensors of an exported folder for vLLM: packed words of codes for layers with a kernel, numbers for all others. No vLLM."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from torch import Tensor

from mpq.errors import FormatError
from mpq.formats.stored import PARTS
from mpq.models.running.fake_quantized import as_parameter
from mpq.records.artifact import ArtifactHeader
from mpq.records.artifact_files import artifact_files, read_header
from mpq.records.open_artifact import opened, parts_in, unpacking
from mpq.tensors.quantized import unpack_weight
from mpq.tensors.words import packed


def header_in(folder: Path) -> ArtifactHeader:
    """The header of the artifact in an exported folder.

    Raises:
        FormatError: if there is no such folder, or its artifact is damaged.
    """
    if not folder.is_dir():
        raise FormatError(f"{folder} is not a folder on this machine: download the repository first (hf download), and name its folder")
    return read_header(folder)


def weights_in(folder: Path, as_words: Collection[str]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of an exported folder, layer by layer.

    Args:
        folder: what `mpq export --to huggingface` wrote.
        as_words: names of layers to give as packed words; all others are dequantized to the dtype of the original layer.

    Raises:
        FormatError: if the artifact is damaged.
    """
    header = header_in(folder)
    with opened(artifact_files(folder)) as file:
        for layer in header.layers:
            scheme = header.schemes[layer.name]
            with unpacking(folder, layer.name):
                weight = unpack_weight(parts_in(file, layer, scheme), scheme, layer.matrix).all_rows()
                if layer.name in as_words:
                    yield from ((f"{layer.name}.{part}", tensor) for part, tensor in packed(weight).items())
                else:
                    yield layer.parameters[0], as_parameter(weight, layer)
        parts = {f"{layer.name}.{part}" for layer in header.layers for part in PARTS}
        yield from ((name, file.get_tensor(name)) for name in file.keys() if name not in parts)  # noqa: SIM118
