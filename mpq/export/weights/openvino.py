"""OpenVINO: the ONNX graph, converted by OpenVINO to its own format, an .xml with a .bin next to it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mpq.export.abilities import ExportError
from mpq.export.base import Options, Written, package
from mpq.export.output_place import staged
from mpq.export.source import Source
from mpq.export.weights.compare import compared, flat
from mpq.export.weights.onnx.target import Onnx, tolerance
from mpq.shown import first_line

_USE = (
    "use: openvino.Core().compile_model(XML, 'CPU')",
    "by default it may compute in bfloat16 or with 8-bit activations, which is faster; with {'EXECUTION_MODE_HINT': 'ACCURACY'} it gives "
    "the artifact's outputs",
)


class OpenVino(Onnx):
    """Codes stay int4 and int8, scales fp16; groups must divide the row."""

    has_symmetric = False
    looks_up_codes = False  # OpenVINO does so itself
    ending = ".xml"
    suffix = ".xml"
    abilities = replace(Onnx.abilities, ragged=False)

    def check(self, source: Source, options: Options) -> None:
        """Import both converters.

        Raises:
            ExportError: if one is not installed.
        """
        super().check(source, options)
        package("openvino", extra="openvino")

    def places(self, output: Path) -> tuple[Path, ...]:
        """The graph and its weights."""
        return output, output.with_suffix(".bin")

    def write(self, source: Source, output: Path, options: Options) -> Written:
        """Write the graph, convert it, save it."""
        openvino = package("openvino", extra="openvino")
        with tempfile.TemporaryDirectory() as folder:
            graph = Path(folder) / "model.onnx"
            notes, _ = self.save(source, graph, options)
            model = _converted(openvino, graph)
            with staged(output.parent, last=output.name) as made:
                openvino.save_model(model, made / output.name, compress_to_fp16=False)
                told = _compared(source, options, made / output.name)
            del model  # it maps the file of the graph
        weights = output.with_suffix(".bin")
        kept = f"weights are in {weights.name}, {weights.stat().st_size:,} bytes: keep the two files together"
        return Written(output, (*notes, kept, told, *_USE), (weights,))


def _converted(openvino: Any, graph: Path) -> Any:
    try:
        return openvino.convert_model(graph)
    except Exception as error:  # any failure in openvino is caused by the model
        raise ExportError(f"openvino cannot convert this model ({reason(error)}): --to onnx may run where openvino does not") from error


def reason(error: Exception) -> str:
    """The first line of an error of OpenVINO that names the operator; its first lines name its own source files."""
    lines = [line.strip() for line in str(error).splitlines() if "While validating" in line or "Conversion failed for" in line]
    return lines[-1].removesuffix(":") if lines else first_line(error)


def _compared(source: Source, options: Options, graph: Path) -> str:
    def opened() -> Any:
        core = package("openvino", extra="openvino").Core()
        program = core.compile_model(graph, "CPU", {"EXECUTION_MODE_HINT": "ACCURACY"})
        return lambda call: [torch.from_numpy(found) for found in program([tensor.numpy() for tensor in flat(call)]).values()]

    return compared(source, options, "openvino", opened, tolerance=tolerance(source), main=source.kind != "export")
