"""NNCodec: python run_nncodec.py MODEL CALIBRATION OUTPUT QP, for a folder with one model.safetensors.

All float tensors are coded, each uniform grid with the same step; a smaller QP has smaller steps. No data is used. Bytes are those of the
whole bitstream. Packages that only NNCodec's own examples import are replaced by empty ones, so that they need not be installed.
"""

import contextlib
import importlib.abc
import importlib.machinery
import io
import json
import resource
import sys
import time
import types
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

EXAMPLES = (
    "cv2",
    "datasets",
    "flwr",
    "hydra",
    "pandas",
    "ptflops",
    "sentencepiece",
    "sklearn",
    "torchmetrics",
    "torchvision",
    "transformers",
    "wandb",
)


class _Anything(type):
    """A class whose attributes are itself."""

    def __getattr__(cls, name: str) -> Any:
        return _attribute(name)


class _Nothing(metaclass=_Anything):
    """Stands for whatever an example imports."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        return _attribute(name)


def _attribute(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Nothing


class Empty(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds empty packages in place of those that only the examples need."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        wanted = name.partition(".")[0] in EXAMPLES or name.startswith("nncodec.framework.applications")
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if wanted else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        made = types.ModuleType(spec.name)
        made.__dict__["__getattr__"] = _attribute
        return made

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def main() -> None:
    """Code, decode and write."""
    folder, _, output, qp = sys.argv[1:]
    sys.meta_path.insert(0, Empty())
    from nncodec.nn import decode, encode

    state = {
        name: value.astype(np.float32) for name, value in load_file(Path(folder, "model.safetensors")).items() if value.dtype.kind == "f"
    }
    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        stream = encode({name: value.copy() for name, value in state.items()}, args={"qp": int(qp), "verbose": False})
    seconds = time.process_time() - began
    with contextlib.redirect_stdout(io.StringIO()):
        decoded = decode(stream)
    weights = {name: np.asarray(decoded[name], dtype=np.float32).reshape(value.shape) for name, value in state.items()}
    save_file(weights, Path(output, "weights.safetensors"))
    facts = {
        "bits": {},
        "bytes": len(stream),
        "seconds": seconds,
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "version": version("nncodec"),
    }
    Path(output, "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
