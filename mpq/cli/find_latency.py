"""Which profile a limit of time is read from, and what it predicts. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING

from mpq.errors import FormatError, UsageError

if TYPE_CHECKING:
    from mpq.formats.scheme import Scheme


def split_costs(texts: Sequence[str] | None, *, timed: bool) -> tuple[list[str], Path | None]:
    """The values of `--cost` that are FILE=MOST, and the profile that one without "=" names, which only a limit of time can use.

    Raises:
        UsageError: if there are several of these.
    """
    bare = [text for text in texts or () if "=" not in text] if timed else []
    if len(bare) > 1:
        raise UsageError(f"--cost {' and --cost '.join(bare)}: --max-latency uses one profile, the others need FILE=MOST")
    return [text for text in texts or () if text not in bare], Path(bare[0]) if bare else None


def latency_cost(wanted: str, given: Path | None, source: Path, *, model: str, activations: bool) -> dict[str, float]:
    """The limit that a time stands for, in milliseconds by the file of the profile.

    Args:
        wanted: the time, "3ms".
        given: the profile, if it is named; else the one beside `source` is taken.
        source: the sensitivity file.
        model: sha256 of the model.
        activations: whether the plan may have integer activations.

    Raises:
        UsageError: if there is no profile, or `wanted` is not a time, or the profile is of layers that read integers and these do not.
        MismatchError: if it was measured on another machine or model.
    """
    from mpq.records.latency import check_profile, milliseconds, profile_beside
    from mpq.search.costs import profile_facts

    most, path = milliseconds(wanted), given or profile_beside(source)
    if path is None:
        raise UsageError(f"--max-latency needs the times of the layers on this machine: run `mpq profile {source}` first")
    facts = profile_facts(path)
    if facts is None:
        raise UsageError(f"{path} was not written by mpq profile: give --cost {path}=MOST instead of --max-latency")
    check_profile(path, facts, model=model)
    if facts.activations and not activations:
        raise UsageError(f"{path} has the times of layers that read integers: leave out --activations off")
    return {str(path): most}


def predicted_latency(artifact: Path, schemes: Mapping[str, Scheme], *, model: str) -> tuple[float, int] | None:
    """Milliseconds that the profile beside an artifact predicts for it, and the batch size; None without a profile of model and machine."""
    from mpq.records.latency import profile_beside, this_machine
    from mpq.search.costs import profile_facts, read_costs

    try:
        path = profile_beside(artifact, model=model)
        facts = None if path is None else profile_facts(path)
        if path is None or facts is None or facts.machine != this_machine() or facts.runtime != "torch":
            return None
        _, known = read_costs(path)
    except (FormatError, UsageError):
        return None
    if any(pair not in known for pair in schemes.items()):
        return None
    return facts.rest_ms + fsum(known[pair] for pair in schemes.items()), facts.batch
