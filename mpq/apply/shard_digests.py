"""Tracks which files of a sharded artifact are finished, by digests of their contents.

The size and header do not show whether a file was made from the right model. So each finished file is recorded, with its SHA-256, in
`.model.mpq.safetensors.parts.jsonl` next to it. The first line of this file identifies the inputs: the contents of the checkpoint, the
plan's schemes, quantizer and versions. When all files are finished, the digests move to the index, and this file is removed.

Only the process that holds the index writes the notes. Processes that help it (`shard_job.py`) write the digest of each file that they
finish to a separate file, `.NAME.done`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mpq.apply.shard_plan import Shard, index_of
from mpq.distribution import VERSION
from mpq.errors import FormatError
from mpq.files import Journal, journal_lines, sha256_of, write_text
from mpq.reading.documents import read_json
from mpq.records.plan import Plan
from mpq.writing.checksums import unsealed

INDEX = "model.mpq.safetensors.index.json"
_NOTES = ".model.mpq.safetensors.parts.jsonl"


def identity_of(digest: str, plan: Plan) -> str:
    """The inputs of an artifact as one SHA-256; `digest` is that of the checkpoint's contents."""
    layers = {name: str(scheme) for name, scheme in plan.layers.items()}
    facts = [digest, plan.model, plan.quantizer, layers, plan.axes, plan.groups, VERSION, version("torch")]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=list).encode()).hexdigest()


class Parts:
    """The finished files in `folder` of the artifact with the given `identity`."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.index = folder / INDEX
        self._identity, self._notes = identity, folder / _NOTES
        self._journal: Journal | None = None
        self._digests = _done(folder, identity) | _noted(self._notes, identity) | _indexed(self.index, identity)

    def holds(self, shard: Shard) -> bool:
        """Whether a finished file exists unchanged: same header, same size, same contents."""
        digest = self._digests.get(shard.output.name)
        return digest is not None and shard.is_there() and sha256_of([shard.output]) == digest

    def taken_over(self, shard: Shard) -> bool:
        """Whether another process has finished a file, which is noted then."""
        digest = _done(shard.output.parent, self._identity, shard.output.name).get(shard.output.name)
        if digest is None or not shard.is_there() or sha256_of([shard.output]) != digest:
            return False
        self._note(shard, digest)
        return True

    def begin(self, kept: Sequence[Shard]) -> None:
        """Call before any file is replaced: records the files that are kept, and removes the index, which would name a mixture of files."""
        self._digests = {shard.output.name: self._digests[shard.output.name] for shard in kept}
        self._journal = Journal.create(self._notes, {"made_of": self._identity})
        self._journal.append(*({"file": name, "sha256": digest} for name, digest in self._digests.items()))
        self.index.unlink(missing_ok=True)

    def finished(self, shard: Shard) -> None:
        """Record a file that was just written."""
        self._note(shard, sha256_of([shard.output]))

    def _note(self, shard: Shard, digest: str) -> None:
        assert self._journal is not None, "begin comes first"
        self._digests[shard.output.name] = digest
        self._journal.append({"file": shard.output.name, "sha256": digest})

    def close(self) -> None:
        """Close the record; it stays for the next run."""
        if self._journal is not None:
            self._journal.close()

    def complete(self, shards: Sequence[Shard]) -> None:
        """Write the index with the digests, and remove the record."""
        index = index_of(shards)
        index["metadata"] |= {
            "made_of": self._identity,
            "sha256": {shard.output.name: self._digests[shard.output.name] for shard in shards},
        }
        write_text(self.index, json.dumps(index, indent=1) + "\n")
        self.close()
        self._notes.unlink(missing_ok=True)
        for shard in shards:
            _done_file(shard.output.parent, shard.output.name).unlink(missing_ok=True)


def leave_done(shard: Shard, identity: str) -> None:
    """Tell the process that writes the notes that a file is finished."""
    facts = {"made_of": identity, "file": shard.output.name, "sha256": sha256_of([shard.output])}
    write_text(_done_file(shard.output.parent, shard.output.name), json.dumps(facts))


def is_finished(shard: Shard, identity: str) -> bool:
    """Whether a process has noted that a file is finished; its contents are not looked at."""
    folder, name = shard.output.parent, shard.output.name
    return name in _done(folder, identity, name) or name in _noted(folder / _NOTES, identity)


def finished_names(folder: Path, identity: str) -> set[str]:
    """The files that processes have noted as finished; their contents are not looked at."""
    return {*_done(folder, identity), *_noted(folder / _NOTES, identity)}


def noted_identity(folder: Path) -> str | None:
    """What the artifact is made of that is being written to `folder`; None where nobody has begun."""
    try:
        _, line = next(iter(journal_lines(folder / _NOTES)))
        return str(unsealed(line.rstrip(b"\n"))["made_of"])
    except (FormatError, ValueError, KeyError):
        return None


def _done_file(folder: Path, name: str) -> Path:
    return folder / f".{name}.done"


def _done(folder: Path, identity: str, name: str | None = None) -> dict[str, str]:
    """Digests by file name that helping processes have left, of one file if it is named."""
    found = {}
    for path in folder.glob(".*.done") if name is None else [_done_file(folder, name)]:
        try:
            facts: Any = read_json(path, error=FormatError, absent="run `mpq apply --shards`", remedy="run it again").value
            if facts["made_of"] == identity:
                found[str(facts["file"])] = str(facts["sha256"])
        except (FormatError, KeyError, TypeError):
            continue
    return found


def _noted(path: Path, identity: str) -> dict[str, str]:
    """Digests by file name from the record of an earlier run; empty if it was for a different artifact or cannot be read."""
    try:
        head, *lines = [unsealed(line.rstrip(b"\n")) for _, line in journal_lines(path)]
    except (FormatError, ValueError):
        return {}
    if head.get("made_of") != identity:
        return {}
    return {str(line["file"]): str(line["sha256"]) for line in lines if {"file", "sha256"} <= line.keys()}


def _indexed(path: Path, identity: str) -> dict[str, str]:
    try:
        metadata: Any = read_json(path, error=FormatError, absent="run `mpq apply --shards`", remedy="run it again").value["metadata"]
        digests: Any = metadata["sha256"]
    except (FormatError, KeyError, TypeError):
        return {}
    if metadata.get("made_of") != identity or not isinstance(digests, Mapping):
        return {}
    return {str(name): str(digest) for name, digest in digests.items()}
