"""ExecuTorch: a program (.pte) whose weights are int4 and int8, multiplied by XNNPACK on the CPU of a phone or a computer.

The storage of its kernels, from the source of executorch 1.5 (backends/xnnpack and kernels/quantized):

    linear         int4 and int8 per row with float32 scales; int4 in groups of a multiple of 32 with bfloat16 scales
    convolution    two-dimensional, without groups: int8 per row
    embedding      int4 and int8, per row or in groups, with float32 scales; a table that is also the head is stored for each use

Linear layers and convolutions round their inputs to 8 bits at run time. Scales must be positive: a negative scale is flipped together with
its codes or, if the lowest code has no opposite, with the sign of the output (per row). Groups for which neither works, and everything else
that XNNPACK cannot represent, are rounded again as int8 per row. Other layers are stored as float32 values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mpq.export.abilities import Abilities, ExportError
from mpq.export.base import Options, Target, Written, package
from mpq.export.nearest_scheme import closest, widen, without_idle_group
from mpq.export.output_place import staged
from mpq.export.source import Source
from mpq.export.weights.compare import Run, compared, flat, rounded_inputs
from mpq.export.weights.executorch.graph import Graph
from mpq.export.weights.executorch.weights import fits_positive
from mpq.export.weights.quiet import quiet
from mpq.formats.scheme import Scheme
from mpq.records.layer import Layer
from mpq.shown import first_line, listed
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.registry import quantizer_named

_SHOWN = 6
_TURNED = "some groups have negative scales; with --quantizer rtn in the analysis there are none, and int4 groups are kept"
_USE = (
    "use: import executorch.kernels.quantized, then executorch.runtime.Runtime.get().load_program(path).load_method('forward').execute(...)"
)
_FLOATS = ("fp32",)
_GROUPED = Abilities(bits=(4,), group_sizes=(32, 64, 96, 128, 160, 192, 224, 256), whole_row=False, floats=_FLOATS)
_ROWS = {bits: Abilities(bits=bits, group_sizes=(), floats=_FLOATS) for bits in ((4, 8), (8,))}
_TABLE = {bits: Abilities(bits=bits, floats=_FLOATS) for bits in ((4, 8), (8,))}
_REFUGE = Scheme("int8")


class ExecuTorch(Target):
    """Linear layers, convolutions and embeddings in 4 and 8 bits; inputs of any length for language models, else of the traced shape."""

    ending = ".pte"
    abilities = Abilities(bits=(4, 8), floats=_FLOATS)

    def check(self, source: Source, options: Options) -> None:
        """Trace the model, and find layers that have groups with negative scales.

        Raises:
            ExportError: if executorch is not installed, or torch cannot trace the model.
        """
        with quiet():
            package("executorch.exir", extra="executorch")
        self._graph = Graph(source, options)
        self._stuck = {name for name, weight in source.weights() if weight.scheme.group_size is not None and not fits_positive(weight)}

    def takes(self, name: str) -> bool:
        """Whether a kernel supports the layer's codes."""
        return bool(self._graph.uses(name))

    def expresses(self, layer: Layer, scheme: Scheme) -> bool:
        """By what uses the layer's weight; whether groups have negative scales is not known before `check`."""
        scheme = without_idle_group(scheme, layer.matrix)
        return any(closest(scheme, layer.matrix, kernel) == scheme for kernel in _kernels(layer))

    def closest(self, name: str, scheme: Scheme, matrix: tuple[int, int]) -> Scheme | None:
        """The cheapest scheme for every use of the layer that represents its values; int8 per row if no integer scheme does."""
        uses, scheme = self._graph.uses(name), without_idle_group(scheme, matrix)
        exact = self._exact(name, uses, scheme, matrix)
        if exact is None or scheme.is_float or not exact.is_float or not scheme.is_integer or scheme.bits == 8:
            return exact
        return _REFUGE

    def _exact(self, name: str, uses: set[str], scheme: Scheme, matrix: tuple[int, int]) -> Scheme | None:
        if uses == {"embedding"}:
            return closest(scheme, matrix, _TABLE[(4, 8) if matrix[1] % 2 == 0 else (8,)])
        if "convolution" in uses:
            return closest(scheme, matrix, _ROWS[(8,)])
        if name not in self._stuck:
            grouped = closest(scheme, matrix, _GROUPED)
            if scheme.group_size is not None and grouped is not None and grouped.is_integer:
                return grouped
        return closest(scheme, matrix, _ROWS[(4, 8)])

    def write(self, source: Source, output: Path, options: Options) -> Written:
        """Put codes into the graph, lower it, save it."""
        anew = []
        for name, weight in source.with_schemes(source.stored).weights():
            if not self._graph.uses(name) or source.schemes[name].is_float:
                continue
            stored = _stored(weight, source.schemes[name])
            if stored is None:
                stored = quantizer_named("rtn").quantize(weight.dequantize(), source.schemes[name])
                anew.append(name)
            self._graph.put(name, stored)
        program = _lower(self._graph.program())
        with staged(output.parent, last=output.name) as folder:
            with (folder / output.name).open("wb") as file:
                program.write_to_file(file)
            told = self._compared(source, options, folder / output.name)
        turned = self._stuck.intersection(anew)
        return Written(output, (*_notes(source, self._graph, anew), *([_TURNED] if turned else []), *self._graph.notes, told, _USE))

    def _compared(self, source: Source, options: Options, file: Path) -> str:
        def opened() -> Run:
            package("executorch.kernels.quantized", extra="executorch")
            program = package("executorch.runtime", extra="executorch").Runtime.get().load_program(file)
            method = program.load_method("forward")
            return lambda call: method.execute(flat(call))

        return compared(source, options, "executorch", opened, tolerance=rounded_inputs(source), main=self._graph.tokens, single=True)


def _kernels(layer: Layer) -> tuple[Abilities, ...]:
    if layer.operator == "embedding":
        return (_TABLE[(4, 8) if layer.matrix[1] % 2 == 0 else (8,)],)
    return (_ROWS[(8,)],) if layer.operator == "conv" else (_GROUPED, _ROWS[(4, 8)])


def _stored(weight: QuantizedWeight, scheme: Scheme) -> QuantizedWeight | None:
    """The same values under `scheme`; None if it cannot represent them."""
    rows_only = scheme.group_size is None and weight.scales is not None and weight.scales.shape[1] > 1
    return None if rows_only else widen(weight, scheme)


def _lower(program: Any) -> Any:
    exir = package("executorch.exir", extra="executorch")
    with quiet():
        package("executorch.kernels.quantized", extra="executorch")
        partitioner = package("executorch.backends.xnnpack.partition.xnnpack_partitioner", extra="executorch").XnnpackPartitioner()
        try:
            return exir.to_edge_transform_and_lower(program, partitioner=[partitioner]).to_executorch()
        except Exception as error:  # any failure in executorch is caused by the model
            raise ExportError(f"executorch cannot lower this model ({first_line(error)})") from error


def _notes(source: Source, graph: Graph, anew: list[str]) -> list[str]:
    notes = ["linear layers and convolutions round their inputs to 8 bits at run time, so outputs are close to the artifact's, not equal"]
    grouped = [name for name, scheme in source.schemes.items() if scheme.group_size and graph.uses(name) - {"embedding"}]
    if grouped:
        notes.append(f"scales of groups are rounded to bfloat16 in {len(grouped)} layers")
    if anew:
        notes.append(f"rounded again as int8 per row, because XNNPACK has no format for their values: {listed(anew, _SHOWN)}")
    whole = [name for name, scheme in source.schemes.items() if not graph.uses(name) and not scheme.is_float]
    if whole:
        notes.append(f"stored as float32 values, because no kernel supports their codes: {listed(whole, _SHOWN)}")
    twice = [name for name in source.schemes if len(graph.uses(name)) > 1]
    if twice:
        notes.append(f"stored once for each use: {listed(twice, _SHOWN)}")
    return notes
