"""What mpq reads of strangers, each file with the commands that read it, and what must hold however the file is damaged.

    python -m tests.reader_fuzz READER COUNT SEED

runs COUNT variants of one file in this process, under limits of time and memory, and prints every fault.
"""

import contextlib
import io
import json
import os
import resource
import shlex
import signal
import sys
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.main import get_command

from mpq.cli.main import app
from mpq.config import AnalysisSettings, DataSettings, SearchSettings, read_config, settings_from
from mpq.errors import MpqError
from mpq.records.plan import plan_to_yaml, write_plan
from tests.mutations import as_json, byte_mutations, document_mutations, line_mutations, mutations
from tests.sound_files import (
    BUDGETS_TEXT,
    CONFIG_TEXT,
    FORMS,
    artifact_bytes,
    costs_text,
    full_plan,
    full_table,
    index_text,
    write_table,
)

_COMMAND: Any = get_command(app)
SECONDS, BYTES, TEXT = 5.0, 4 << 30, 4000
Mutate = Callable[[bytes, int, int], Iterator[bytes]]


@dataclass(frozen=True)
class Reader:
    """A file that mpq reads.

    Args:
        file: its name.
        commands: what reads it, as typed.
        mutate: how variants of it are made.
    """

    file: str
    commands: tuple[str, ...]
    mutate: Mutate = document_mutations


PLAN = (
    "show {file}",
    "show {file} --json",
    "check {file}",
    "check {file} --budget 4.5bits --scope file --max-error 0.1",
    "check {file} --max-loaded 1MB --max-loaded-packed 1kB --junit junit.xml --github",
    "check {file} --baseline good.yaml --max-growth 1%",
    "check good.yaml --baseline {file}",
    "diff good.yaml {file}",
    "diff {file} good.yaml --markdown",
    "report {file} -o report.html",
    "explain {file} blocks.0.q",
    "search good.sensitivity.jsonl --budget 6bits --trials 0 -o out.yaml --from {file}",
)
TABLE = (
    "show {file}",
    "search {file} --budget 6bits --trials 0 -o out.yaml",
    "report {file} -o report.html",
    "explain good.yaml blocks.0.q --sensitivity {file}",
    "diff good.yaml good.yaml --sensitivity {file}",
)
ARTIFACT = (
    "show {file}",
    "check {file} --budget 6bits",
    "check {file} --budget 1MB --scope file --max-loaded 1MB",
    "report {file} -o report.html",
)
SEARCH = "search good.sensitivity.jsonl --trials 0 -o out.yaml"
FROM = (f"{SEARCH} --budget 6bits --from {{file}}",)
INDEX = ("show {file}", "check several --budget 6bits", "check {file} --budget 1MB --scope file")
CONFIG = ("check good.yaml --config {file}", "SETTINGS {file}", f"{SEARCH} --config {{file}}")
BUDGETS = ("check --budgets {file} --junit junit.xml --github", "check --budgets {file} --json")
COSTS = (f"{SEARCH} --budget 6bits --cost {{file}}=1e6", "explain good.yaml blocks.0.q --cost {file}")


def prepared(folder: Path) -> dict[str, Reader]:
    """The readers, with a sound file of each in `folder`."""
    table = full_table()
    plan = full_plan(table)
    write_plan(plan, folder / "good.yaml")
    write_table(table, folder / "good.sensitivity.jsonl")
    artifact = artifact_bytes(plan, table)
    (folder / "several").mkdir()
    (folder / "several" / "a.mpq.safetensors").write_bytes(artifact)
    files: dict[str, tuple[str | bytes, Reader]] = {
        "plan": (plan_to_yaml(plan), Reader("plan.yaml", PLAN)),
        "sensitivity": ((folder / "good.sensitivity.jsonl").read_bytes(), Reader("x.sensitivity.jsonl", TABLE, line_mutations)),
        "artifact": (artifact, Reader("x.mpq.safetensors", ARTIFACT, header_mutations)),
        "index": (index_text(table), Reader("several/x.mpq.safetensors.index.json", INDEX)),
        "config": (CONFIG_TEXT, Reader("config.yaml", CONFIG)),
        "budgets": (BUDGETS_TEXT, Reader("budgets.yaml", BUDGETS)),
        "costs": (costs_text(table), Reader("costs.csv", COSTS, byte_mutations)),
        "assignment-csv": (
            "layer,bits,group_size,symmetric\nblocks.0.q,4,32,\nblocks.0.k,8,,true\n",
            Reader("a.csv", FROM, byte_mutations),
        ),
    }
    files |= {f"assignment-{name}": (json.dumps(form), Reader(f"{name}.json", FROM)) for name, form in FORMS.items()}
    for content, reader in files.values():
        (folder / reader.file).write_bytes(content.encode() if isinstance(content, str) else content)
    return {name: reader for name, (_, reader) in files.items()}


def header_mutations(content: bytes, seed: int, count: int) -> Iterator[bytes]:
    """Variants of an artifact: of its bytes, of its header, and of what mpq says in that; the length before it is kept right."""
    length = int.from_bytes(content[:8], "little")
    tree, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    yield from byte_mutations(content[: 8 + length], seed, count // 4)
    heads = [as_json(made) for made in mutations(tree, seed, count // 4)]
    for made in mutations(json.loads(tree["__metadata__"]["mpq"]), seed, count - 2 * (count // 4)):
        heads.append(as_json({**tree, "__metadata__": {"mpq": as_json(made).decode()}}))
    yield from (len(head).to_bytes(8, "little") + head + data for head in heads)


def faults(reader: Reader, content: bytes) -> list[str]:
    """What is wrong with the way the commands take this content of the file, in the current folder."""
    Path(reader.file).write_bytes(content)
    found = []
    for command in reader.commands:
        line = command.format(file=reader.file)
        before, wrong = time.monotonic(), ""
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = _run(line)
            wrong = _wrong(code, out.getvalue(), err.getvalue(), plain="--github" not in line)
        except Exception as error:
            wrong = f"{type(error).__name__}: {str(error)[:300]} {''.join(traceback.format_tb(error.__traceback__)[-2:])}"
        if time.monotonic() - before > SECONDS:
            wrong = wrong or f"took {time.monotonic() - before:.1f} s"
        if wrong:
            found.append(f"{line}: {wrong}")
    return found


def _run(line: str) -> int:
    words = shlex.split(line)
    if words[0] == "SETTINGS":
        return _settings(Path(words[1]))
    try:
        return int(_COMMAND.main(words, prog_name="mpq", standalone_mode=False) or 0)
    except SystemExit as done:
        return int(done.code or 0)


def _settings(path: Path) -> int:
    """What `mpq analyze` reads of a configuration, without the model."""
    try:
        analyze, searching = read_config(path, "analyze"), read_config(path, "search")
        data = {name: analyze.pop(name, None) for name in ("seq_len", "num_samples", "batch_size")}
        analyze.pop("calib", None)
        settings_from(DataSettings, data)
        settings_from(AnalysisSettings, analyze)
        settings_from(
            SearchSettings, {name: value for name, value in searching.items() if name in ("pins", "min_bits", "candidates", "costs")}
        )
    except MpqError as error:
        sys.stderr.write(f"mpq: {error}\n")
        return error.exit_code
    return 0


def _wrong(code: int, out: str, err: str, *, plain: bool) -> str:
    if code not in (0, 1, 2, 3):
        return f"exit code {code}"
    last = err.splitlines()[-1] if err else ""
    if code in (2, 3) and not (last.startswith("mpq: ") and err.count("mpq: ") >= 1):
        return f"exit code {code} without a reason: {err[:200]!r}"
    if code in (2, 3) and (len(last) > TEXT or out):
        return f"exit code {code}, {len(last)} characters of reason, output {out[:100]!r}"
    strange = sorted({each for each in out + err if each != "\n" and unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp")})
    if strange:
        return f"prints {strange}"
    forged = [line for line in (out + err).splitlines() if "##[" in line or (plain and line.lstrip().startswith("::"))]
    return f"prints a command to CI: {forged[0][:100]!r}" if forged else ""


def main(name: str, count: int, seed: int, folder: Path) -> int:
    """Try variants of one file; the number of faults."""
    os.chdir(folder)
    os.environ.pop("GITHUB_STEP_SUMMARY", None)
    readers = prepared(folder)
    reader = readers[name]
    sound = Path(reader.file).read_bytes()
    for wrong in faults(reader, sound):
        print("SOUND", wrong)
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    seen: dict[str, int] = {}
    slowest = 0.0
    for number, content in enumerate(reader.mutate(sound, seed, count)):
        before = time.monotonic()
        signal.alarm(60)
        for wrong in faults(reader, content):
            kind = wrong[-160:]
            seen[kind] = seen.get(kind, 0) + 1
            if seen[kind] == 1:
                Path(f"fault-{len(seen)}").write_bytes(content)
                print(f"{name} {number}: {wrong[:900]}", flush=True)
        signal.alarm(0)
        slowest = max(slowest, time.monotonic() - before)
    print(f"{name}: {count} tried, {sum(seen.values())} faults of {len(seen)} kinds, slowest {slowest:.2f} s")
    return len(seen)


if __name__ == "__main__":
    import tempfile

    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(tempfile.mkdtemp())) > 0)
