"""Files of the benchmark in the programs that run them: outputs, and CPU times."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from mpq.data.batch import Batch

Run = Callable[[Sequence[Any]], Any]
ROUNDS = 9


@dataclass(frozen=True)
class Variant:
    """A file, and what is known of it."""

    name: str
    path: Path
    note: str = ""

    @property
    def bytes(self) -> int:
        """Size, with the weights beside it."""
        beside = (self.path, self.path.with_suffix(".bin"), self.path.with_name(f"{self.path.name}.data"))
        return sum(file.stat().st_size for file in beside if file.is_file())


def onnx_runtime(path: Path) -> Run:
    """A session on one thread; inputs in the order of the graph."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = runtime.InferenceSession(path, options)
    names = [given.name for given in session.get_inputs()]
    return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))[0]


def openvino(path: Path) -> Run:
    """A model compiled for latency on one thread; by default OpenVINO would compute fp32 in bfloat16 where the CPU has that."""
    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    model = importlib.import_module("openvino").Core().compile_model(path, "CPU", settings)
    return lambda inputs: model(list(inputs))[0]


def arrays(batch: Batch) -> list[Any]:
    """The tensors of a call as arrays."""
    leaves = pytree.tree_leaves((batch.args, batch.kwargs))
    return [leaf.numpy() for leaf in leaves if isinstance(leaf, Tensor)]


def timed(variants: Sequence[Variant], opened: Callable[[Path], Run], inputs: Sequence[Sequence[Any]]) -> dict[str, list[float]]:
    """The least CPU time in milliseconds of each variant, for each of several inputs; all variants take turns."""
    runs: dict[str, Run] = {}
    for variant in variants:
        try:
            runs[variant.name] = opened(variant.path)
        except Exception as error:  # a program may not know an operator
            print(f"  {variant.name} does not load: {str(error).strip().splitlines()[0][:100]}")
    best = {name: [float("inf")] * len(inputs) for name in runs}
    for place, given in enumerate(inputs):
        for round_number in range(ROUNDS + 1):
            for name, run in list(runs.items()):
                began = time.process_time()
                run(given)
                if round_number:  # the first is not counted
                    best[name][place] = min(best[name][place], 1e3 * (time.process_time() - began))
    return best
