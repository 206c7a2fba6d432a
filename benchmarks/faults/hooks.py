"""Stands between mpq and the disk, in this process: counts writes, renames and syncs below a folder, and lets one of them fail or kill.

`open`, `os.write`, `os.pwrite`, `os.replace`, `os.rename`, `os.truncate` and `os.fsync` are replaced, so that no code in mpq is needed.
What libraries write by themselves in C is not seen; kills at random moments reach that.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = ("write", "rename", "sync")
MODES = ("before", "half", "after")
ERRORS = {"full": errno.ENOSPC, "quota": errno.EDQUOT, "read-only": errno.EROFS}


@dataclass(frozen=True)
class Fate:
    """What happens at which event.

    Args:
        mode: "before", "half" (of the bytes are written) or "after": the process is killed there; "full", "quota" or "read-only": this
            event and all after it fail as on such a disk.
        at: the number of the event, from 0 on; None counts only.
    """

    mode: str = "before"
    at: int | None = None


class Hook:
    """Counts events below `folder`. `log` holds the kind of each in order."""

    def __init__(self, folder: Path, fate: Fate) -> None:
        self._folder, self._fate = str(folder.resolve()), fate
        self._lock = threading.Lock()
        self.log: list[str] = []
        self.real_open, self._real = builtins.open, {name: getattr(os, name) for name in ("replace", "rename", "fsync", "truncate")}
        self._write, self._pwrite = os.write, os.pwrite

    def install(self) -> Hook:
        """Replace the functions of this process for good."""
        builtins.open = io.open = self._opened
        replaced: dict[str, Any] = {
            "write": lambda fd, data: self._put(fd, data, lambda part: self._write(fd, part)),
            "pwrite": lambda fd, data, place: self._put(fd, data, lambda part: self._pwrite(fd, part, place)),
            "fsync": lambda fd: self.event("sync", fd, lambda: self._real["fsync"](fd)),
            "truncate": lambda path, size: self.event("write", path, lambda: self._real["truncate"](path, size)),
        }
        for name in ("replace", "rename"):
            replaced[name] = self._renaming(self._real[name])
        for name, function in replaced.items():
            setattr(os, name, function)
        return self

    def event(self, kind: str, target: Any, do: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        """Do something to `target`, or what fate has for it."""
        if not self._inside(target):
            return do()
        with self._lock:
            number = len(self.log)
            self.log.append(kind)
        fate = self._fate
        if fate.at is None or number < fate.at:
            return do()
        if fate.mode in ERRORS:
            if half is not None and number == fate.at and fate.mode != "read-only":
                half()
            raise OSError(ERRORS[fate.mode], os.strerror(ERRORS[fate.mode]), str(target))
        if number == fate.at:
            if fate.mode == "half" and half is not None:
                half()
            elif fate.mode == "after":
                do()
            os.kill(os.getpid(), signal.SIGKILL)
        return do()

    def _put(self, target: Any, data: Any, put: Callable[[Any], Any]) -> Any:
        view = memoryview(data).cast("B")
        return self.event("write", target, lambda: put(view), lambda: put(view[: len(view) // 2]))

    def _renaming(self, real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda source, target, **more: self.event("rename", target, lambda: real(source, target, **more))

    def _opened(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        if not set(mode) & set("wax+") or not self._inside(file):
            return self.real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        if self._fate.mode == "read-only" and self._fate.at is not None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(file))
        raw = _Counted(self, file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding, errors, newline)

    def _inside(self, target: Any) -> bool:
        try:
            path = Path(f"/proc/self/fd/{target}").readlink() if isinstance(target, int) else Path(os.fspath(target)).absolute()
        except (OSError, TypeError):
            return False
        return str(path).startswith(self._folder + os.sep)


class _Counted(io.FileIO):
    """A file whose writes are events."""

    def __init__(self, hook: Hook, file: Any, mode: str, closefd: bool, opener: Any) -> None:
        super().__init__(file, mode, closefd, opener)
        self._hook = hook

    def write(self, data: Any, /) -> Any:
        return self._hook._put(self.fileno(), data, super().write)
