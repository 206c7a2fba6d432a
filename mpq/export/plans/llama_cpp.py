"""llama.cpp: the file for `llama-quantize --tensor-type-file`.

One `expression=type` per line, nothing else: the file is split at white space and has no comments. Expressions are searched in the
lower-case name of a tensor, and the first match wins. Read from llama.cpp's tools/quantize/quantize.cpp of August 2026.
"""

from __future__ import annotations

from pathlib import Path

from mpq.export.abilities import ExportError
from mpq.export.base import Options, Target, Written
from mpq.export.gguf_blocks import ABILITIES, block_type
from mpq.export.llama_names import gguf_name
from mpq.export.source import Source
from mpq.files import write_text


class LlamaCpp(Target):
    """Block types of 32 weights; llama-quantize chooses the codes itself."""

    needs_weights = False
    ending = ".tensor_types.txt"
    abilities = ABILITIES

    def check(self, source: Source, options: Options) -> None:
        """Refuse models of other families.

        Raises:
            ExportError: listing a layer that has no name in a GGUF file.
        """
        strange = [name for name in source.schemes if gguf_name(name) is None]
        if strange:
            raise ExportError(
                f"'{strange[0]}' has no name in a GGUF file: this target only supports Llama-family models with Hugging Face names"
            )

    def write(self, source: Source, output: Path, options: Options) -> Written:
        """Write one line per layer."""
        lines = []
        for name, scheme in source.schemes.items():
            tensor = str(gguf_name(name)).replace(".", r"\.")
            lines.append(f"^{tensor}$={block_type(scheme).lower()}\n")
        write_text(output, "".join(lines))
        return Written(output, (f"use: llama-quantize --tensor-type-file {output.name} model-f16.gguf model.gguf Q8_0",))
