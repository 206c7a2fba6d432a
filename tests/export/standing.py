"""A process that answers one line after another, so that it imports once what it needs; it ends with its last test."""

import json
import subprocess
import sys
from types import TracebackType
from typing import Self

_LOOP = """
import json, sys, traceback
for line in sys.stdin:
    try:
        answer(*json.loads(line))
        print(json.dumps(""), flush=True)
    except BaseException:
        print(json.dumps(traceback.format_exc()), flush=True)
"""


class Standing:
    """Runs `code`, which defines `answer`, in a process of its own."""

    def __init__(self, code: str) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", code + _LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.communicate(timeout=60)

    def ask(self, *words: str) -> None:
        """Call `answer` there; its error fails the test."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline()
        assert said, "the process has ended"
        assert json.loads(said) == "", json.loads(said)
