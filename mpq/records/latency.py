"""What `mpq profile` writes: the time of each layer under each scheme on one machine, as a cost file with a first line of facts. No torch.

    # mpq profile: {"batch": 1, "machine": "...", "model": "<sha256>", "rest_ms": 0.8, "runtime": "torch", "threads": 2, "torch": "2.13.0"}
    layer,scheme,latency_ms
    conv1,int4-g32,0.12

The predicted time of a plan is the sum over its layers and `rest_ms`, what the model spends on everything else.
"""

from __future__ import annotations

import csv
import io
import platform
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mpq.errors import FormatError, MismatchError, UsageError
from mpq.files import write_text
from mpq.formats.scheme import Scheme
from mpq.processors import processors

ENDING = ".latency.csv"
COLUMN = "latency_ms"
_MARK = "# mpq profile: "
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_TIME = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(us|ms|s)")
_CPU = re.compile(r"^(?:model name|Hardware|cpu model)\s*: *(.+)$", re.MULTILINE)


class LatencyFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The first line of a profile.

    Args:
        runtime: what ran the layers: "torch", with mpq's packed kernels, or the program that runs the export.
        machine: processor and number of processors.
        torch: its version.
        threads: of torch.
        model: sha256 of the model.
        batch: samples at once.
        rest_ms: milliseconds of a call outside of the layers.
        version: of another runtime than torch.
        activations: whether layers with integer weights read integers, too.
    """

    runtime: str
    machine: str
    torch: str
    threads: int
    model: str
    batch: int
    rest_ms: float
    version: str = ""
    activations: bool = False

    def to_line(self) -> str:
        """The first line of the file."""
        return _MARK + msgspec.json.encode(self).decode()


def read_latency_facts(text: str, path: Path) -> LatencyFacts | None:
    """The facts in the first line of a cost file; None if it is no profile.

    Raises:
        FormatError: if the line is damaged.
    """
    first = text.partition("\n")[0].strip()
    if not first.startswith(_MARK):
        return None
    try:
        facts = msgspec.json.decode(first.removeprefix(_MARK), type=LatencyFacts)
    except msgspec.MsgspecError as error:
        raise FormatError(f"{path}, line 1: {error}: run `mpq profile` again") from error
    if not 0 <= facts.rest_ms < 1e9:
        raise FormatError(f"{path}, line 1: rest_ms is {facts.rest_ms}: run `mpq profile` again")
    return facts


def write_latencies(path: Path, facts: LatencyFacts, times: Mapping[tuple[str, Scheme], float]) -> None:
    """Write a profile; `times` are milliseconds by layer and scheme."""
    rows = io.StringIO()
    written = csv.writer(rows, lineterminator="\n")
    written.writerow(["layer", "scheme", COLUMN])
    written.writerows([layer, str(scheme), f"{time:.6g}"] for (layer, scheme), time in times.items())
    write_text(path, f"{facts.to_line()}\n{rows.getvalue()}")


def milliseconds(text: str) -> float:
    """A time such as "3ms", "800us" or "0.1s" in milliseconds.

    Raises:
        UsageError: if it is not one.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None or float(match[1]) == 0:
        raise UsageError(f"--max-latency '{text}' is not a time: write for example 3ms, 800us or 0.1s")
    return float(match[1]) * _UNITS[match[2]]


def check_profile(path: Path, facts: LatencyFacts, *, model: str) -> None:
    """Refuse a profile of another model or another machine.

    Raises:
        MismatchError: naming both.
    """
    if facts.model != model:
        raise MismatchError(
            f"{path} was measured on another model (sha256 {facts.model[:12]}…, this one has {model[:12]}…): run `mpq profile` again"
        )
    here = this_machine()
    if facts.machine != here:
        raise MismatchError(
            f"{path} was measured on '{facts.machine}', this machine is '{here}': run `mpq profile` here, or use --cost FILE=MOST"
        )


def this_machine() -> str:
    """Processor, and how many this process may use."""
    info = Path("/proc/cpuinfo")
    match = _CPU.search(info.read_text(errors="replace")) if info.exists() else None
    name = match[1] if match else platform.processor() or platform.machine()
    return f"{name.strip()}, {processors()} processors"


def profile_beside(path: Path, *, model: str | None = None) -> Path | None:
    """The profile in the folder of a file: the only one, of that model if one is named.

    Raises:
        UsageError: if there are several.
    """
    found = [each for each in sorted(path.parent.glob(f"*{ENDING}")) if model is None or _model_of(each) == model]
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise UsageError(f"{len(found)} profiles beside {path.name} ({names}): name one with --cost FILE")
    return found[0] if found else None


def _model_of(path: Path) -> str | None:
    """The hash of the model in a profile; None for a cost file without one."""
    with path.open(errors="replace") as file:
        facts = read_latency_facts(file.readline(1 << 16), path)
    return None if facts is None else facts.model
