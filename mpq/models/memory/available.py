"""How much memory is available to this process."""

from __future__ import annotations

from pathlib import Path

_MACHINE = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def available_bytes(machine: Path = _MACHINE, group: Path = _GROUP) -> int | None:
    """Bytes that this process may still take: what the machine has left, or its control group if that is less; None if unknown.

    Args:
        machine: the system's table of its memory.
        group: folder of the process's control group.
    """
    found = [size for size in (_of_machine(machine), _of_group(group)) if size is not None]
    return min(found, default=None)


def _of_machine(path: Path) -> int | None:
    for line in _text(path).splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return 1024 * int(rest.split()[0])
    return None


def _of_group(folder: Path) -> int | None:
    most, now = (_text(folder / name).strip() for name in ("memory.max", "memory.current"))
    return max(0, int(most) - int(now)) if most.isdecimal() and now.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
