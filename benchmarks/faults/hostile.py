"""Malicious files, put wherever a loader reads: a marker file proves that nothing ran and nothing was written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks.faults import hostile_files as files
from benchmarks.faults import world
from benchmarks.faults.context import Context
from benchmarks.faults.forks import Ended, run_one
from benchmarks.faults.hostile_builders import built_cases
from benchmarks.faults.hostile_case import Case, Make
from benchmarks.faults.report import Fault, Row
from benchmarks.faults.watched import Watched, watched

PART = "hostile"
_SECONDS = 60.0
_MODEL_LINES = ("analyze {0} --calib calibration.pt -o out.sensitivity.jsonl", "check {0} --budget 9bits", "show {0}")
_RECORDS = (
    "data/sample_inputs/model.pt",
    "data/Sample_inputs/model.pt",
    "Data/sample_inputs/model.pt",
    "DATA/SAMPLE_INPUTS/MODEL.PT",
    "data//sample_inputs/model.pt",
    "data/sample_inputs/./model.pt",
    "data\\sample_inputs\\model.pt",
    "data/sample_inputs/model.pt\0",
)
_SHORT = (
    "pickle as model and data",
    "object array evil.npz",
    "pt2 record 'data/Sample_inputs/model.pt'",
    "artifact record 'Data/sample_inputs/model.pt'",
    "pt2 operator from_file",
    "torchscript Restoring",
    "hf auto_map",
    "factory in plan",
    "data in budgets",
    "yaml tag in plan.yaml",
    "built program from_file",
    "built program as artifact, sample inputs, another case",
    "built script setstate that saves",
    "built pickle an object in a state dict",
    "built directory auto_map",
    "built bomb a fat header",
    "trusted 0",
)
_CODED = "!!python/object/apply:os.system ['touch {marker}']"


def run(context: Context) -> Row:
    """All cases, each in a folder and a child of its own."""
    row = Row(PART)
    cases = [case for case in (*_cases(), *built_cases()) if context.wanted(case.name) and (not context.short or case.name in _SHORT)]
    progress = context.progress(PART, len(cases))
    for case in cases:
        folder, marker = context.fresh(case.name, None), context.place(f"marker of {case.name}")
        made = run_one(partial(case.make, marker), folder, seconds=_SECONDS)
        marker.unlink(missing_ok=True)
        if made.failure is not None or made.signal:
            row.skipped.append(f"{case.name}: cannot be made here: {made.failure.text if made.failure else made.signal}")
            continue
        for line in case.lines[: 1 if context.short else None]:
            ended = run_one(partial(_read, line), folder, seconds=_SECONDS)
            row.add(_faults(context, case, line, ended, marker), seconds=ended.seconds, held=ended.bytes)
            marker.unlink(missing_ok=True)
        progress.step(text=case.name)
    return row


def _faults(context: Context, case: Case, line: str, ended: Ended, marker: Path) -> list[Fault]:
    repeat = context.repeat(PART, case.name)
    if case.trusted:
        said = ended.failure.text if ended.failure else ended.out[-300:]
        return [] if marker.exists() else [Fault("does not attack", f"{case.name}: {line}", said, repeat)]
    if marker.exists():
        return [Fault("code ran or a file was written", f"{case.name}: {line}", f"{marker.name} is there", repeat)]
    if ended.signal:
        return [Fault(f"killed by signal {ended.signal}", f"{case.name}: {line}", ended.out[-300:], repeat)]
    found: Watched | None = ended.value
    failure = ended.failure if found is None else found.failure
    return [] if failure is None else [Fault(failure.type, f"{case.name}: {line}, {failure.where}", failure.text, repeat)]


def _read(line: str) -> Watched:
    how, _, rest = line.partition(":")
    calls = {"load": _loaded, "model": _called, "trusted": _trusted}
    if how in calls:
        return watched(partial(calls[how], rest), seconds=_SECONDS)
    return watched(partial(world.mpq, line), codes=(0, 1, 2, 3), seconds=_SECONDS)


def _loaded(name: str) -> None:
    import torch

    import mpq

    mpq.load(name)(torch.zeros(2, 8))


def _called(name: str) -> None:
    import torch

    import mpq

    module = mpq.load_model(name).module
    with suppress(Exception):  # a model that loads may take other inputs
        module(torch.zeros(2, 8))


def _trusted(name: str) -> None:
    """Load the model with trust, and call it: what then fails does not matter, as long as the marker is there."""
    import torch

    import mpq

    with suppress(Exception):
        mpq.load_model(name, trust=True).module(torch.zeros(2, 4))


def _cases() -> Iterator[Case]:
    yield from _pickles()
    yield from _archives()
    yield from _scripts()
    yield from _folders()
    yield from _named_code()
    yield from _tags()


def _pickles() -> Iterator[Case]:
    def put(name: str, content: Callable[[Path], bytes]) -> Make:
        return lambda marker: Path(name).write_bytes(content(marker))

    data = ("analyze model.pt2 --calib {0} -o out.sensitivity.jsonl", "eval model.mpq.safetensors --data {0}")
    for kind, content in (("pickle", files.pickled), ("legacy pickle", files.legacy_pickled)):
        lines = (
            *_MODEL_LINES,
            "analyze {0} --calib calibration.pt --builder benchmarks.faults.world:mlp -o out.sensitivity.jsonl",
            "model:{0}",
            *data,
        )
        yield Case(f"{kind} as model and data", put("evil.pt", content), tuple(line.format("evil.pt") for line in lines))
    for name in ("evil.npy", "evil.npz"):
        yield Case(
            f"object array {name}",
            partial(files.object_array, Path(name)),
            tuple(line.format(name) for line in data),
        )


def _archives() -> Iterator[Case]:
    changes: dict[str, Callable[[bytes, Path], bytes]] = {f"record {name!r}": partial(_recorded, name) for name in _RECORDS}
    changes["record twice, evil last"] = lambda content, marker: files.with_record(
        content, "data/sample_inputs/model.pt", files.pickled(marker), without=None
    )
    changes["record twice, evil first"] = lambda content, marker: files.with_record(
        content, "data/sample_inputs/model.pt", files.pickled(marker), without=None, first=True
    )
    changes["pickled weights"] = lambda content, marker: files.with_payload(content, marker, "weights")
    changes["pickled constants"] = lambda content, marker: files.with_payload(content, marker, "constants")
    changes["operator from_file"] = files.with_operator
    changes["compiled library"] = lambda content, marker: files.with_record(content, "data/aotinductor/model/a.so", b"\x7fELF")
    for name, change in changes.items():
        yield Case(f"pt2 {name}", partial(_write_model, change), (*(line.format("evil.pt2") for line in _MODEL_LINES), "model:evil.pt2"))
        lines = ("load:evil.mpq.safetensors", "eval evil.mpq.safetensors --data calibration.pt", "show evil.mpq.safetensors")
        yield Case(f"artifact {name}", partial(_write_artifact, change), lines)


def _recorded(name: str, content: bytes, marker: Path) -> bytes:
    return files.with_record(content, name, files.pickled(marker))


def _write_model(change: Callable[[bytes, Path], bytes], marker: Path) -> None:
    Path("evil.pt2").write_bytes(change(Path("model.pt2").read_bytes(), marker))


def _write_artifact(change: Callable[[bytes, Path], bytes], marker: Path) -> None:
    content = Path("model.mpq.safetensors").read_bytes()
    Path("evil.mpq.safetensors").write_bytes(files.artifact_with_program(content, lambda program: change(program, marker)))


def _scripts() -> Iterator[Case]:
    for where in ("Saving", "Mapping", "Restoring"):
        yield Case(
            f"torchscript {where}", partial(_write_script, where), (*(line.format("evil.pt") for line in _MODEL_LINES), "model:evil.pt")
        )


def _write_script(where: str, marker: Path) -> None:
    Path("evil.pt").write_bytes(files.scripted(marker, where))


def _folders() -> Iterator[Case]:
    lines = (
        "analyze tiny --calib tokens.pt -o out.sensitivity.jsonl",
        "analyze tiny --calib text.txt --seq-len 4 -o out.sensitivity.jsonl",
    )
    more = ("apply tiny.plan.yaml -o out.mpq.safetensors", "apply tiny.plan.yaml --shards out", "show tiny")
    for how in ("auto_map", "trust_remote_code", "tokenizer", "weights", "nested"):
        yield Case(f"hf {how}", partial(files.hugging_face, Path("tiny"), how=how), (*lines, *more))


def _named_code() -> Iterator[Case]:
    """Files that name `module:callable`, with such a module in the current folder."""
    state = {"path": "state.pt", "kind": "state_dict", "factory": "evil:make"}
    search = ("search evil.sensitivity.jsonl --budget 5bits --trials 1 -o out.yaml", "show evil.sensitivity.jsonl")
    plan = (
        "apply evil.yaml -o out.mpq.safetensors",
        "show evil.yaml",
        "check evil.yaml --budget 9bits",
        "export evil.yaml --to onnx -o out.onnx",
    )
    yield Case("factory in plan", partial(_in_plan, "model", state), plan)
    yield Case("source in plan", partial(_in_plan, "data", {"source": "evil:data"}), plan)
    yield Case("factory in sensitivity", partial(_in_table, "model", state), search)
    yield Case("source in sensitivity", partial(_in_table, "data", {"source": "evil:data"}), search)
    lines = (
        "eval evil.mpq.safetensors --data calibration.pt",
        "load:evil.mpq.safetensors",
        "export evil.mpq.safetensors --to onnx -o out.onnx",
    )
    yield Case(
        "factory in artifact",
        partial(_in_artifact, state),
        (*lines, "bench evil.mpq.safetensors", "check evil.mpq.safetensors --budget 9bits"),
    )
    for key, value in (("data", "evil:data"), ("reference", "evil:make")):
        yield Case(f"{key} in budgets", partial(_in_budgets, key, value), ("check --budgets evil-budgets.yaml", "check"))


def _sha256(path: str) -> str:
    from mpq.files import sha256_of

    return sha256_of([Path(path)])


def _facts(given: dict[str, Any]) -> dict[str, Any]:
    return {**given, "sha256": _sha256(given["path"])} if "path" in given else given


def _in_plan(key: str, facts: dict[str, Any], marker: Path) -> None:
    files.evil_module(marker)
    plan = yaml.safe_load(Path("plan.yaml").read_text())
    plan[key] |= _facts(facts)
    Path("evil.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))


def _in_table(key: str, facts: dict[str, Any], marker: Path) -> None:
    import json

    files.evil_module(marker)
    first, *lines = Path("model.sensitivity.jsonl").read_text().splitlines()
    header = json.loads(first)
    header[key] |= _facts(facts)
    Path("evil.sensitivity.jsonl").write_text("\n".join([json.dumps(header), *lines]) + "\n")


def _in_artifact(facts: dict[str, Any], marker: Path) -> None:
    import json

    files.evil_module(marker)
    content = Path("model.mpq.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    told = json.loads(header["__metadata__"]["mpq"])
    told["model"] |= _facts(facts)
    header["__metadata__"]["mpq"] = json.dumps(told)
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    Path("evil.mpq.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + content[8 + length :])


def _in_budgets(key: str, value: str, marker: Path) -> None:
    files.evil_module(marker)
    rule = {"files": "model.mpq.safetensors", "max_error": 1.0, "data": "calibration.pt"} | {key: value}
    for name in ("evil-budgets.yaml", "mpq-budgets.yaml"):
        Path(name).write_text(yaml.safe_dump({"mpq_budgets": 1, "budgets": [rule]}))


def _tags() -> Iterator[Case]:
    """YAML that names Python objects, in every file of YAML."""
    places = {
        "config.yaml": "search model.sensitivity.jsonl --budget 5bits --trials 0 --config config.yaml -o out.yaml",
        "budgets.yaml": "check --budgets budgets.yaml",
        "plan.yaml": "show plan.yaml",
        "assignment.yaml": "search model.sensitivity.jsonl --budget 5bits --trials 1 --from assignment.yaml -o out.yaml",
    }
    for name, line in places.items():
        yield Case(f"yaml tag in {name}", partial(_tag, Path(name)), (line,))


def _tag(path: Path, marker: Path) -> None:
    before = path.read_text() if path.exists() else ""
    path.write_text(f"{before}quant_cfg: {_CODED.format(marker=marker)}\n")
