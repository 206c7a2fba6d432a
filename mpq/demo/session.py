"""Records docs/session.md: a terminal session on the digits model that ships with mpq, from `mpq analyze` to `mpq check`.

python -m mpq.demo.session > docs/session.md

The commands run in a new folder, in a terminal of 80 columns, and their output is recorded. Numbers may differ in their last digits on
another machine; a test compares the commands with this file and their output with the page, except for numbers.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from mpq.demo import write_demo

HEAD = """\
# A session, from analysis to CI gate

Recorded by `python -m mpq.demo.session > docs/session.md`, on the small CNN for handwritten digits that ships with mpq.
To follow it, run `mpq demo --keep .` in an empty folder: it writes `model.pt2`, `calibration.pt` and `test.pt`.
"""
_PROGRESS = re.compile(r"\w+ \d+/\d+, \d+ s left: ")  # printed only on a slow machine
GIT = "git -c user.name=you -c user.email=you@example.org"
STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Measure what each layer's quantization does to the output. This is the only slow step, and it resumes when it is stopped.",
        ("mpq analyze model.pt2 --calib calibration.pt",),
    ),
    (
        "Find the best scheme for each layer at 4.5 bits per weight. Samples that the analysis has not seen decide.",
        ("mpq search --budget 4.5bits --trials 16",),
    ),
    ("Read the plan, and ask why a layer got its scheme.", ("mpq show plan.yaml", "mpq explain plan.yaml reduce.0")),
    (
        "Write the small model, and evaluate it on data that took no part in any decision.",
        ("mpq apply plan.yaml", "mpq eval model.mpq.safetensors --data test.pt"),
    ),
    (
        "Commit the plan together with a gate. `--init` writes limits slightly above the current values.",
        (
            "mpq check --init",
            "mpq check",
            "git init --quiet",
            "git add plan.yaml mpq-budgets.yaml",
            f"{GIT} commit --quiet -m 'Add a plan'",
        ),
    ),
    (
        "Later, someone asks for more quality, and the model outgrows its budget. The gate fails with exit code 1 and says by how much.\n"
        "Compared with the last commit, it also says which layers grew.",
        (
            "mpq search --budget 6bits --trials 4",
            "mpq check",
            "mpq check plan.yaml --baseline HEAD --max-growth 5%",
            "mpq diff HEAD:plan.yaml plan.yaml",
        ),
    ),
)


def record(folder: Path) -> str:
    """Run all commands in `folder`; the page."""
    write_demo("digits", folder)
    parts = [HEAD]
    for words, commands in STEPS:
        shown = "".join(f"$ {command}\n{printed(command, folder)}" for command in commands)
        parts.append(f"{words}\n\n```console\n{shown}```\n")
    return "\n".join(parts)


def printed(command: str, folder: Path) -> str:
    """The output of a command, on both streams, in a terminal of 80 columns."""
    environment = {
        **os.environ,
        "COLUMNS": "80",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    ran = subprocess.run(command, shell=True, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ran.returncode not in (0, 1):
        raise SystemExit(f"{command} failed with {ran.returncode}:\n{ran.stdout}")
    return "".join(f"{line.rstrip()}\n" for line in ran.stdout.splitlines() if not _PROGRESS.match(line))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        sys.stdout.write(record(Path(temporary)))
