"""A process that answers one line after another, so that it imports once what it needs; it ends with its last test."""

import json
import subprocess
import sys
from pathlib import Path
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
FORKING = """
import os, traceback, warnings
import numpy, torch, torch._dynamo
try:
    warnings.simplefilter("ignore")
    import torchao
except ImportError:
    pass
def answer(code):
    child = os.fork()
    if child == 0:
        try:
            warnings.resetwarnings()
            exec(code, {})
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, code
"""
"""Each line is Python that runs in a process of its own, in which torch is imported and mpq is not."""


class Standing:
    """Runs `code`, which defines `answer`, in a process of its own."""

    def __init__(self, code: str, cwd: Path | None = None) -> None:
        line = [sys.executable, "-c", code + _LOOP]
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=cwd)

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
