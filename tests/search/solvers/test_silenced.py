import subprocess
import sys

NATIVE = """
import ctypes, os
from mpq.search.solvers.silenced import silenced

c = ctypes.CDLL(None)
print("before")
c.puts(b"native before")
with silenced():
    c.puts(b"buffered by C")
    os.write(1, b"written at once")
print("after")
"""


def test_what_native_code_prints_inside_is_lost_and_everything_else_kept() -> None:
    ran = subprocess.run([sys.executable, "-c", NATIVE], stdout=subprocess.PIPE, text=True, check=True)
    assert sorted(ran.stdout.split("\n")) == ["", "after", "before", "native before"]


def test_a_process_without_stdout_is_left_alone() -> None:
    code = "import os; os.close(1); from mpq.search.solvers.silenced import silenced\nwith silenced(): os.write(2, b'done')"
    ran = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False)
    assert ran.stderr.startswith("done")
