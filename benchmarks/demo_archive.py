"""Small `torch.export` archives: without the notes that only debugging needs, and compressed.

`torch.export.save` stores its files uncompressed, with a stack trace for each node of the graph. `torch.export.load` reads
a compressed archive as well. Time stamps are fixed, so the same program gives the same bytes.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

_NOTES = ("stack_trace", "source_fn_stack", "torch_fn", "from_node")


def export_small(module: nn.Module, example: Tensor, *, dimensions: dict[int, Any], path: Path) -> None:
    """Export `module` in eval mode to `path`, with `example` as its example input and `dimensions` of it dynamic."""
    program = torch.export.export(module.eval(), (example,), dynamic_shapes=(dimensions,))
    drop_notes(program)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    path.write_bytes(compressed(buffer.getvalue()))


def drop_notes(program: ExportedProgram) -> None:
    """Remove the debugging notes of every node, in place; the modules that nodes come from stay."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for note in _NOTES:
                    node.meta.pop(note, None)


def compressed(archive: bytes) -> bytes:
    """The same zip archive with every entry deflated, in the same order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(buffer, "w") as target:
        for entry in source.infolist():
            target.writestr(zipfile.ZipInfo(entry.filename), source.read(entry), zipfile.ZIP_DEFLATED, compresslevel=9)
    return buffer.getvalue()
