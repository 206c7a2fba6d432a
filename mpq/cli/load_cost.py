"""The cost of loading one model, measured in a separate process that runs this file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mpq.errors import MpqError

if TYPE_CHECKING:
    from torch import nn

    from mpq.runtime.load_cost import Loading


def loading_of(what: str, artifact: Path, *, reference: Path, factory: str | None, trust: bool, dtype: str | None = None) -> Loading:
    """The cost of loading in a new process.

    Args:
        what: "packed" or "reference".
        artifact: the artifact.
        reference: the model that it was made from.
        factory: what builds the module of a state dict.
        trust: allow a pickled reference.
        dtype: of the packed model, as `--dtype` names it.

    Raises:
        MpqError: if it cannot be loaded there.
    """
    line = [
        sys.executable,
        "-P",  # the current folder may hold files with the names of modules
        "-m",
        "mpq.cli.load_cost",
        what,
        str(artifact),
        str(reference),
        factory or "",
        "trust" if trust else "",
        dtype or "",
    ]
    found_by = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    ran = subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": found_by})
    if ran.returncode:
        reason = (ran.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MpqError(f"the {what} model cannot be loaded in a separate process: {reason}")

    from mpq.runtime.load_cost import Loading

    return Loading(**json.loads(ran.stdout))


def _main(what: str, artifact: str, reference: str, factory: str, trust: str, dtype: str) -> None:
    from mpq.cli.options import dtype_of
    from mpq.models.sources.load import load_model
    from mpq.models.sources.rebuild import rebuild_module
    from mpq.records.artifact_files import read_header
    from mpq.records.facts import checkpoint_options
    from mpq.records.stands_alone import stands_alone
    from mpq.runtime.load import load
    from mpq.runtime.load_cost import measured

    header = read_header(Path(artifact))
    if header.config:
        rebuild_module("hf", program=None, config=header.config, hollow=True)  # imports do not count as part of the model

    def original() -> nn.Module:
        return load_model(reference, factory=factory or None, trust=bool(trust), **checkpoint_options(header.model)).module

    given = original() if what == "packed" and not stands_alone(header, Path(artifact)) else None

    def packed() -> nn.Module:
        return load(artifact, given, packed=True, dtype=dtype_of(dtype or None), activations=False)

    found = measured(original if what == "reference" else packed)
    sys.stdout.write(json.dumps(asdict(found)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
