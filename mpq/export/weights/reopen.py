"""The running model of an artifact, whatever it was made from, and inputs to trace it with."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from torch import nn

from mpq.data.dataset import Batch
from mpq.export.abilities import ExportError
from mpq.export.base import Options
from mpq.export.source import Source
from mpq.models.inputs.load_data import load_data
from mpq.models.sources.load import load_model
from mpq.models.sources.loaded import LoadedModel
from mpq.models.sources.state_dict import code_named_by_file
from mpq.records.named_code import named_factory
from mpq.runtime.load import load

_ALONE = ("export", "hf")


def original_path(source: Source, options: Options) -> Path | None:
    """Where the original model is, as given or as the artifact says; None if it is not there."""
    if options.model is not None:
        return options.model
    path = source.model.get("path")
    found = [place for place in (source.path.parent / str(path), Path(str(path))) if place.exists()]
    return found[0] if path is not None and found else None


def quantized_module(source: Source, options: Options) -> nn.Module:
    """The module of an artifact with its quantized weights.

    Raises:
        ExportError: if the artifact holds weights only and the original model is not there.
        TrustError: if the artifact names a factory, and neither the user names one nor trusts it.
    """
    if source.kind in _ALONE:
        return load(source.path)
    path = original_path(source, options)
    if path is None:
        raise ExportError(
            f"{source.path} holds weights only, and its model {source.model.get('path')} is not there: name it with --reference"
        )
    named = None if options.factory is not None else named_factory(source.model, source.path, trust=options.trust)
    with nullcontext() if named is None else code_named_by_file():
        return load(source.path, load_model(path, factory=options.factory or named, trust=options.trust).module)


def sample(module: nn.Module, source: Source, options: Options) -> Batch:
    """Two samples of the inputs in --data.

    Raises:
        ExportError: if no data is given.
    """
    if options.data is None:
        raise ExportError(f"a {source.kind} model brings no inputs to trace it with: add --data FILE, two samples are enough")
    loaded = LoadedModel(module, source.kind, str(source.model.get("sha256")))
    return load_data(options.data, model=loaded, num_samples=2, batch_size=2).batches[0]
