"""Attack mpq in every way that this folder knows, and print one table.

    python -m benchmarks.faults [--only kills mutations] [--count N] [--seed N] [--short] [--json] [--jobs N]

In full it takes an hour or two on two cores. Exit code 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: children are forked, and threads are not
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # the other one reserves a gigabyte of addresses, which a limit counts

from benchmarks.faults.context import Context
from benchmarks.faults.report import Row, lines_of, machine
from benchmarks.faults.world import World, make_world

PARTS = ("kills", "mutations", "hostile", "disks", "workers", "bombs", "numbers", "determinism", "versions")


def main() -> None:
    """Run the parts asked for."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what was mounted, started or made is removed
    began, state = time.monotonic(), machine()
    with tempfile.TemporaryDirectory(prefix="mpq-faults-", dir=options.folder) as temporary:
        folder = Path(temporary)
        sys.stderr.write("making the files to attack\n")
        world = make_world(folder / "world")
        rows = [_row(part, world, folder / part, options) for part in options.only]
    state["minutes"] = round((time.monotonic() - began) / 60, 1)
    if options.json:
        sys.stdout.write(json.dumps({"rows": [row.to_dict() for row in rows], "machine": state}, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(lines_of(rows, state)) + "\n")
    raise SystemExit(1 if any(row.lost for row in rows) else 0)


def _row(part: str, world: World, scratch: Path, options: argparse.Namespace) -> Row:
    scratch.mkdir()
    context = Context(world, scratch, options.seed, options.count, options.short, options.jobs, options.case)
    row: Row = import_module(f"benchmarks.faults.{part}").run(context)
    sys.stderr.write(f"{part}: {row.tried} tried, {row.lost} lost\n")
    return row


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="PART", choices=PARTS, default=list(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--count", type=int, help="kills; mutated inputs of each reader; trials of the workers [default: as in full]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", metavar="TEXT", help="only the cases whose names hold this text")
    parser.add_argument("--short", action="store_true", help="a few seconds for each part")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--jobs", type=int, default=1, help="children at once")
    parser.add_argument("--folder", type=Path, help="where the files are kept while it runs [default: the system's]")
    return parser.parse_args()


if __name__ == "__main__":
    main()
