"""One evaluation on the command line: artifact, reference and data opened, progress shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpq.cli.console import progress, say, warn
from mpq.cli.find_inputs import read_data, reopen_model
from mpq.config import DataSettings
from mpq.errors import FormatError

if TYPE_CHECKING:
    from torch import nn

    from mpq.models.sources.loaded import LoadedModel
    from mpq.records.artifact import ArtifactHeader
    from mpq.records.evaluation import Evaluation


def evaluate_artifact(
    artifact: Path,
    data: str,
    settings: DataSettings,
    *,
    reference: Path | None = None,
    factory: str | None = None,
    outputs: Sequence[str] = (),
    trust: bool = False,
    device: str | None = None,
) -> Evaluation:
    """Compares the artifact with the model that it was made from.

    Args:
        artifact: what `mpq apply` wrote.
        data: where the samples come from, in any form that `mpq eval --data` accepts.
        settings: how they are read.
        reference: the unquantized model, if it is not where the artifact says.
        outputs: those to compare; empty compares all.
        factory: what builds the module for a state dict, if the user names it.
        trust: allow a pickled reference, and the factory that the artifact names.
        device: where both compute; see `load_model`.

    Raises:
        FormatError: if there is no artifact.
        MpqError: if the model or the data cannot be read, or do not match.
    """
    header = header_of(artifact)

    from mpq.activations.exceeded import counted
    from mpq.evaluate.run import evaluate
    from mpq.models.memory.devices import device_of, move

    def reopened(*, again: bool) -> LoadedModel:
        return reopen_model(header.model, artifact, given=reference, factory=factory, trust=trust, again=again, device=device)

    model = reopened(again=False)
    quantized = quantized_in(artifact, header, lambda: reopened(again=True).module)
    move(quantized, device_of(model.module))
    samples = read_data(data, model, settings)
    say(f"data: {samples.description}")
    with progress("eval") as advance, counted(quantized, header.activations) as counts:
        found = evaluate(model, quantized, samples, outputs=outputs, on_progress=advance)
    for line in counts.lines(header.activations):
        warn(line)
    return found


def header_of(artifact: Path) -> ArtifactHeader:
    """The header of an artifact.

    Raises:
        FormatError: if there is no artifact, or it is damaged.
    """
    from mpq.records.artifact_files import read_header

    if not artifact.exists():
        raise FormatError(f"{artifact} does not exist: run `mpq apply` first, or name the artifact")
    return read_header(artifact)


def quantized_in(artifact: Path, header: ArtifactHeader, module: Callable[[], nn.Module]) -> nn.Module:
    """The quantized model; `module` gives the original for an artifact that needs it, whose weights are overwritten."""
    from mpq.records.stands_alone import stands_alone
    from mpq.runtime.load import load

    return load(artifact) if stands_alone(header, artifact) else load(artifact, module())
