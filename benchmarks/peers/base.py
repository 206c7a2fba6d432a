"""What a peer is: its packages, a program that runs in an environment of its own, and what that gives."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

WORKERS = Path(__file__).with_name("workers")


@dataclass(frozen=True)
class Peer:
    """One configuration of another quantizer.

    Args:
        name: of the row.
        worker: file name of its program in `workers/`, run as `python WORKER MODEL CALIBRATION OUTPUT OPTIONS...`. It writes
            OUTPUT/weights.safetensors, the dequantized weights by name in the state dict, and OUTPUT/facts.json.
        packages: what pip installs into its environment.
        options: of the program.
        whole: it quantizes all weights, and its bytes are those of its file; else the linear layers of all blocks.
        alone: what pip installs after that without the packages that these name.
    """

    name: str
    worker: str
    packages: tuple[str, ...]
    options: tuple[str, ...] = ()
    whole: bool = False
    alone: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """What a peer made.

    Args:
        weights: dequantized, by name in the state dict.
        bits: of a code, by layer name.
        bytes: of codes, scales and zero points of all these layers, or of the whole file.
        seconds: of CPU time for the whole job.
        peak_bytes: largest resident memory of its process.
        version: of its package.
    """

    weights: dict[str, Tensor]
    bits: dict[str, float]
    bytes: int
    seconds: float
    peak_bytes: int
    version: str


class PeerError(Exception):
    """A peer that does not run here, with its own error."""


def run(peer: Peer, model: Path, calibration: Path, work: Path, *, output: Path | None = None) -> Result:
    """Run a peer, or read what an earlier run left in `output`.

    Args:
        peer: what to run.
        model: folder of the model.
        calibration: file of the calibration windows.
        work: folder of the environments.
        output: folder of the results; None for one in `work` with the peer's name.

    Raises:
        PeerError: if its packages cannot be installed, or its program fails.
    """
    output = work / peer.name if output is None else output
    if not (output / "facts.json").exists():
        output.mkdir(parents=True, exist_ok=True)
        python = _environment(peer, work)
        _checked([str(python), str(WORKERS / peer.worker), str(model), str(calibration), str(output), *peer.options], output / "log.txt")
    facts = json.loads((output / "facts.json").read_text())
    return Result(load_file(output / "weights.safetensors"), **facts)


def _environment(peer: Peer, work: Path) -> Path:
    """The Python of an environment with the peer's packages; peers with the same packages share it."""
    folder = work / "environments" / peer.worker.removesuffix(".py")
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not (folder / "installed").exists():
        venv.create(folder, with_pip=True)
        _checked([str(python), "-m", "pip", "install", "--quiet", *peer.packages], folder / "log.txt")
        if peer.alone:
            _checked([str(python), "-m", "pip", "install", "--quiet", "--no-deps", *peer.alone], folder / "log.txt")
        (folder / "installed").touch()
    return python


def _checked(command: list[str], log: Path) -> None:
    with log.open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        lines = log.read_text(errors="replace").strip().splitlines()
        raise PeerError(lines[-1] if lines else f"exit code {done.returncode}")


def reset_peak() -> None:
    """Begin anew with the largest resident memory of this process, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The largest resident memory of this process since `reset_peak`; 0 where the system does not say."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 0
