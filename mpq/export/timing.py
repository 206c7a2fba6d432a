"""The time of each layer of an ONNX export in the runtime that loads it, from the runtime's own profiler.

The nodes of the graph get names that tell their layer. Runtimes keep these names when they fuse operators and insert conversions, so the
time of each operator that they report belongs to a layer: the operator of the layer itself, what dequantizes its weight, and what follows
up to the next layer, which runtimes may fuse with it. The profiler makes a call slower, so all times are scaled to that of a call without
it.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mpq.export.base import package
from mpq.export.stored.onnx import PREFIX, Graph

_LEAST, _MOST = 5, 500  # calls
_WARM = 3
_TAG = re.compile(r"mpq\.(\d+)\.")
_ON_THE_WAY = ("Cast", "Reshape", "Transpose", "Identity", "DequantizeLinear", "Unsqueeze", "Squeeze")
_ENDINGS = (".codes", ".values", ".weight", "")

Events = list[tuple[str, float]]
"""The operators of one call in their order, and their seconds."""


class Times(NamedTuple):
    """Seconds of one call.

    Args:
        layers: by place among the layers.
        whole: of a call without the profiler.
    """

    layers: list[float]
    whole: float


def version_of(runtime: str) -> str:
    """The version of an installed runtime.

    Raises:
        ExportError: if it is not installed.
    """
    extra = {"onnxruntime": "onnx"}.get(runtime, runtime)
    return str(package(runtime, extra=extra).__version__).partition("-")[0]


def layer_times(path: Path, layers: Sequence[str], inputs: Sequence[Any], *, runtime: str, threads: int, seconds: float) -> Times:
    """The time of each layer of an export, the least of many calls.

    Args:
        path: the ONNX file; unchanged.
        layers: names of the layers.
        inputs: arrays for one call, in the order of the graph's inputs.
        runtime: one of `mpq.export.registry.RUNTIMES`.
        threads: that the runtime may use.
        seconds: to spend.

    Raises:
        ExportError: if the runtime is not installed.
    """
    opened = {"onnxruntime": _onnxruntime, "openvino": _openvino}[runtime]
    with tempfile.TemporaryDirectory() as folder:
        tagged = tag(path, layers, Path(folder) / "tagged.onnx")
        whole = _fastest(opened(path, inputs, threads, None)[0], seconds / 2)
        run, events = opened(tagged, inputs, threads, Path(folder))
        _fastest(run, seconds / 2)
        found = attributed(events(), len(layers))
    scale = whole / max(1e-12, sum(found))
    return Times([scale * each for each in found], whole)


def tag(path: Path, layers: Sequence[str], output: Path) -> Path:
    """Write a graph whose nodes are called after the layer that they belong to; `output`."""
    graph, onnx = Graph(path), package("onnx", extra="onnx")
    places = {f"{prefix}{name}{ending}": n for n, name in enumerate(layers) for ending in _ENDINGS for prefix in ("", PREFIX)}
    owners = {name: places[name] for name in graph.initializers if name in places}
    renamed: dict[str, str] = {}
    returned = {each.name for each in graph.model.graph.output}
    behind: dict[str, int] = {}  # by value: the number of the node of the latest layer that it comes from
    kept: dict[int, int] = {}  # its layer
    for number, node in enumerate(graph.model.graph.node):
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
        weight = next((owners[name] for name in node.input if name in owners), None)
        latest = max((behind[name] for name in node.input if name in behind), default=None)
        on_the_way = weight is not None and node.op_type in _ON_THE_WAY
        if weight is not None and not on_the_way:
            latest, kept[number] = number, weight
        layer = weight if weight is not None else None if latest is None else kept[latest]
        node.name = f"node{number}" if layer is None else f"mpq.{layer}.node{number}"
        for place, name in enumerate(node.output):
            if name and name not in returned:
                renamed[name] = node.output[place] = f"{node.name}.{place}"
            if on_the_way and weight is not None:
                owners[node.output[place]] = weight
            elif latest is not None:
                behind[node.output[place]] = latest
    del graph.model.graph.value_info[:]  # under the old names
    onnx.save(graph.model, output)
    return output


def attributed(calls: Iterable[Events], layers: int) -> list[float]:
    """The least seconds of each layer in one call; operators that tell no layer belong to the one that follows, at the end to the last."""
    best = [float("inf")] * layers
    for events in calls:
        spent, waiting, last = [0.0] * layers, 0.0, layers - 1
        for name, seconds in events:
            found = _TAG.search(name)
            waiting += seconds
            if found is not None:
                last = int(found[1])
                spent[last] += waiting
                waiting = 0.0
        spent[last] += waiting
        best = list(map(min, best, spent))
    return best


def _fastest(run: Callable[[], Any], seconds: float) -> float:
    """Seconds of the shortest call."""
    for _ in range(_WARM):
        run()
    best, rounds, began = float("inf"), 0, time.perf_counter()
    while rounds < _LEAST or (rounds < _MOST and time.perf_counter() - began < seconds):
        start = time.perf_counter()
        run()
        best, rounds = min(best, time.perf_counter() - start), rounds + 1
    return best


def _onnxruntime(
    path: Path, inputs: Sequence[Any], threads: int, folder: Path | None
) -> tuple[Callable[[], Any], Callable[[], list[Events]]]:
    runtime = package("onnxruntime", extra="onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    if folder is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(folder / "times")
    session = runtime.InferenceSession(path, options)
    given = dict(zip((each.name for each in session.get_inputs()), inputs, strict=True))
    return lambda: session.run(None, given), lambda: _calls(json.loads(Path(session.end_profiling()).read_text()))


def _calls(records: Iterable[dict[str, Any]]) -> list[Events]:
    """The kernels of each call in a profile of ONNX Runtime, without the first ones."""
    calls: list[Events] = [[]]
    for record in records:
        if record.get("cat") == "Node" and record["name"].endswith("_kernel_time"):
            calls[-1].append((record["name"], 1e-6 * record["dur"]))
        elif record.get("name") == "model_run":
            calls.append([])
    return [call for call in calls if call][_WARM:]


def _openvino(path: Path, inputs: Sequence[Any], threads: int, folder: Path | None) -> tuple[Callable[[], Any], Callable[[], list[Events]]]:
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = package("openvino", extra="openvino").Core().compile_model(path, "CPU", settings | {"PERF_COUNT": folder is not None})
    request, seen = compiled.create_infer_request(), list[Events]()
    origins = {
        node.get_friendly_name(): str(node.get_rt_info()["originalLayersNames"].value) for node in compiled.get_runtime_model().get_ops()
    }

    def run() -> None:
        request.infer(list(inputs))
        if folder is not None:
            found = request.get_profiling_info()
            seen.append([(_tagged(each.node_name, origins), each.real_time.total_seconds()) for each in found])

    return run, lambda: seen[_WARM:]


def _tagged(name: str, origins: dict[str, str]) -> str:
    """The name of a node of OpenVINO, or of what it was made from, whichever tells its layer."""
    return name if _TAG.search(name) else origins.get(name, name)
