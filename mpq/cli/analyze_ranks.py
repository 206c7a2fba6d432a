"""What the other processes of `mpq analyze --workers N`, or of torchrun, do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpq.cli.console import print_json, say, suggest
from mpq.cli.find_inputs import calibration_source, read_data
from mpq.config import DataSettings

if TYPE_CHECKING:
    from mpq.models.running.ranks import Ranks
    from mpq.records.sensitivity import Sensitivity


@dataclass(frozen=True)
class Opening:
    """What another process needs to open the same model and data.

    Args:
        model: the model.
        loading: options of `load_model`.
        calib: the data, if it was named.
        reading: how it is read.
        seed: of reading.
        cache: folder of codes that all processes share; None: one that goes with them.
        part: of the layers, if there is one.
    """

    model: Path
    loading: Mapping[str, Any]
    calib: str | None
    reading: DataSettings
    seed: int
    cache: Path | None
    part: str | None = None


def follow(opening: Opening, ranks: Ranks) -> None:
    """Take part in an analysis as one of its ranks; nothing is printed or written."""
    from mpq.analyze.run import analyze
    from mpq.models.sources.load import load_model

    loaded = load_model(opening.model, **opening.loading)
    source = calibration_source(opening.calib, loaded, needed=True)
    data = None if source is None else read_data(source, loaded, opening.reading, seed=opening.seed)
    if data is not None:
        analyze(loaded, data, cache=opening.cache, part=opening.part, ranks=ranks)


def followed() -> bool:
    """Whether torchrun started this process as a rank other than 0, which writes and prints nothing."""
    return os.environ.get("RANK", "0") != "0" and "MASTER_ADDR" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def follow_torchrun(opening: Opening) -> None:
    """Take part in an analysis of torchrun as another rank than the first."""
    from mpq.models.running.rank_processes import joined

    follow(opening, joined())


@contextmanager
def ranks_for(workers: str, opening: Opening) -> Iterator[tuple[Ranks | None, Path | None]]:
    """The ranks of this analysis, of which this process is the first, and the folder of codes that they share.

    Raises:
        UsageError: if `workers` is neither a number nor "auto".
    """
    from dataclasses import replace

    from mpq.models.running.quantize_processes import workers_of
    from mpq.models.running.rank_processes import joined, started, under_torchrun, use_threads

    if under_torchrun():
        yield joined(), opening.cache
        return
    size = 1 if workers == "auto" else workers_of(workers, 0)
    if workers != "auto":
        use_threads()
    if size == 1:
        yield None, opening.cache
        return
    with nullcontext() if opening.cache is not None else _temporary() as folder:
        shared = opening.cache or folder
        with started(size, follow, replace(opening, cache=shared)) as (ranks, _):
            yield ranks, shared


@contextmanager
def _temporary() -> Iterator[Path]:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="mpq-codes-") as name:
        yield Path(name)


def report_part(table: Sensitivity, target: Path, part: str, *, json: bool) -> None:
    """Say what a part holds, and what to do with it."""
    measured = len({name for name, _ in table.errors})
    if json:
        print_json({"output": str(target), "part": part, "layers": measured, "all_layers": len(table.layers)})
        return
    for note in (*table.notes, *table.header.notes):
        say(note)
    say(f"wrote {target}: {measured} of {len(table.layers)} layers, {len(table.errors)} values; part {part} is complete")
    suggest(f"mpq merge {target} OTHERS -o FILE, once all parts are complete")
