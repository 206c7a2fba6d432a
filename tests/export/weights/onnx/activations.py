"""Artifacts with integer activations, exported to ONNX."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

import mpq
from mpq.export.run import Exported, export
from mpq.models.sources.load import load_model
from mpq.records.plan import Plan


def exported(
    folder: Path, module: nn.Module, inputs: Tensor, *, activations: str, candidates: str = "8", without: str = ""
) -> tuple[Path, Plan, Exported]:
    """The artifact, its plan without one group, and its export."""
    program = torch.export.export(module, (inputs[:3],), dynamic_shapes=({0: Dim("batch")},))
    torch.export.save(program, folder / "m.pt2")
    loaded = load_model(folder / "m.pt2")
    chosen: dict[str, Any] = {"candidates": candidates, "quantizer": "rtn", "method": "measure", "activations": activations}
    table = mpq.analyze(loaded, list(torch.split(inputs, 4)), **chosen)
    plan = mpq.search(table, "32bits", trials=0).plan
    plan = replace(plan, activations={name: group for name, group in plan.activations.items() if name != without})
    artifact = folder / "m.mpq.safetensors"
    mpq.apply(loaded, plan, artifact, recovery=False, allow_unchanged=True)
    return artifact, plan, export(artifact, "onnx")


def ran(path: Path, inputs: Tensor) -> Tensor:
    """The output by ONNX Runtime."""
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(path)
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0])
