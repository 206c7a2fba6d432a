"""Bad budgets, plans, artifacts and folders: one line with value and remedy, the exit code, and no file left behind."""

import re
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mpq.demo import demo_files
from tests.cli.typed import files, refused, typed

SEARCH = "search --trials 2 --budget"


def edited(path: str, old: str, new: str) -> None:
    text = Path(path).read_bytes()
    assert old.encode() in text
    Path(path).write_bytes(text.replace(old.encode(), new.encode()))


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file may grow beyond `limit` bytes."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parametrize("budget", ["1bits", "1kB", "10%"])
def test_a_budget_that_no_plan_meets_is_refused_with_the_range(folder: Path, budget: str) -> None:
    Path("model.study.journal").unlink()
    assert refused(f"{SEARCH} {budget}", 2) == (
        f"budget {budget} (layers) cannot be met: with these candidates a plan takes 4.163 to 16 bits per weight (12,788 to 49,152 bytes)"
    )


@pytest.mark.parametrize("budget", ["nonsense", "-4bits", "4.5", "nanbits", "4.5 apples"])
def test_a_malformed_budget(folder: Path, budget: str) -> None:
    assert refused(f"{SEARCH} '{budget}'", 2) == (
        f"'{budget}' is not a budget: write bits per weight (4.5bits), bytes (12MB, 12MiB, 900kB) or a share of the original (30%)"
    )


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--pin head=int3", "layer 'head' is pinned to int3, which was not measured: choose from int4, "),
        ("--pin nolayer=int4", "--pin 'nolayer' matches nothing: the closest names are "),
        ("--pin head=banana", "'banana' is not a scheme: "),
        ("--pin head", "--pin 'head' is not PATTERN=SCHEME: write for example --pin conv1=int8"),
        ("--tie head", "--tie 'head' names fewer than two layers: "),
        ("--tie head,nolayer", "'nolayer' is tied but is not a searched layer: "),
        ("--scope both", "--scope 'both' is unknown: use layers or file"),
        ("--trials -1", "trials is -1: give 0 or more"),
        ("--timeout -1", "timeout is -1.0: give 0 or more"),
        ("--storage foo", "--storage 'foo' cannot be opened ("),
        ("--storage sqlite:////nowhere/x.db", "--storage 'sqlite:////nowhere/x.db' cannot be opened ("),
    ],
)
def test_a_wrong_option_of_search(folder: Path, option: str, reason: str) -> None:
    Path("model.study.journal").unlink()
    assert refused(f"{SEARCH} 4.5bits {option}", 2).startswith(reason)


def test_no_budget_and_no_analysis(fresh: Path) -> None:
    assert refused("search", 2) == "no budget: give --budget, for example --budget 4.5bits, 12MB or 30%, or --max-error 0.01"
    assert "run `mpq analyze MODEL` first" in refused("search --budget 4bits", 2)


def test_an_unfinished_analysis(folder: Path) -> None:
    lines = Path("model.sensitivity.jsonl").read_bytes().splitlines(keepends=True)
    Path("model.sensitivity.jsonl").write_bytes(b"".join(lines[:4]))
    reason = refused(f"{SEARCH} 4.5bits", 2)
    assert reason.startswith("the analysis is unfinished: ")
    assert reason.endswith("run `mpq analyze` again, it resumes")


def test_a_model_or_data_that_is_gone(folder: Path) -> None:
    Path("calibration.pt").unlink()
    assert refused(f"{SEARCH} 5bits", 3) == (
        "the data calibration.pt, named in model.sensitivity.jsonl, is missing: put it back, or analyze again with --calib"
    )
    Path("model.pt2").unlink()
    assert refused(f"{SEARCH} 5bits", 3) == (
        "the model model.pt2, named in model.sensitivity.jsonl, is missing: put it back, or give --reference MODEL"
    )


@pytest.mark.parametrize("line", ["apply plan.yaml", f"{SEARCH} 5bits", "eval model.mpq.safetensors --data test.pt"])
def test_another_model_in_its_place(folder: Path, line: str) -> None:
    shutil.copy(demo_files("chars").model, "model.pt2")
    reason = refused(line, 3)
    assert reason.startswith("model.pt2 is not the model that ")
    assert reason.endswith("restore it, or analyze this one")


def test_a_plan_that_names_unknown_layers(folder: Path) -> None:
    edited("plan.yaml", "  head: ", "  hood: ")
    assert refused("apply plan.yaml", 3) == "the plan names 'hood', which the model does not have: did you mean 'head'?"


def test_a_plan_edited_over_its_budget(folder: Path) -> None:
    edited("plan.yaml", "  middle.0: int4", "  middle.0: int8")
    reason = refused("apply plan.yaml", 3)
    assert " more than its budget 4.5bits (layers): lower a layer, or raise the budget in the plan" in reason


@pytest.mark.parametrize(
    ("old", "new", "code", "reason"),
    [
        ("mpq_plan: 2", "mpq_plan: 9", 3, "plan.yaml is a plan of version 9, this mpq reads up to 4: upgrade mpq"),
        ("  stem.0: ", "  stem.0: int5x #", 2, "plan.yaml: 'int5x' is not a scheme: write "),
        ("quantizer: ", "quantizer: best #", 2, "'best' is not a quantizer: use one of rtn, mse"),
        ("rest:", "rast:", 3, "plan.yaml: it has the unknown key 'rast': use mpq_plan, model, "),
        ("layers:", "layers: [", 3, "plan.yaml is not YAML that mpq reads"),
    ],
)
def test_a_plan_edited_into_something_else(folder: Path, old: str, new: str, code: int, reason: str) -> None:
    edited("plan.yaml", old, new)
    assert re.sub(r", line \d+", "", refused("apply plan.yaml", code), count=1).startswith(reason)


@pytest.mark.parametrize("line", ["show model.mpq.safetensors", "eval model.mpq.safetensors --data test.pt"])
def test_an_artifact_of_a_newer_version_or_cut_off(folder: Path, line: str) -> None:
    whole = Path("model.mpq.safetensors").read_bytes()
    edited("model.mpq.safetensors", '\\"version\\":1', '\\"version\\":9')
    assert refused(line, 3) == "model.mpq.safetensors is an artifact of version 9, this mpq reads up to 1: upgrade mpq"
    Path("model.mpq.safetensors").write_bytes(whole[:9000])
    assert refused(line, 3).startswith("model.mpq.safetensors has 9,000 bytes where its header says ")
    Path("model.mpq.safetensors").write_bytes(whole[:900])
    assert refused(line, 3).startswith("model.mpq.safetensors is not a safetensors file, or is cut off: write it again with `mpq apply`")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("apply", "plan.yaml does not exist: run `mpq search` first, or name the plan"),
        ("check", "plan.yaml does not exist: run `mpq search` first, or name a plan or an artifact"),
        ("eval none.safetensors --data test.pt", "none.safetensors does not exist: run `mpq apply` first, or name the artifact"),
        ("show none", "none does not exist: name a sensitivity file, a plan or an artifact"),
        ("show .", ". is a folder: name a sensitivity file, a plan or an artifact"),
        ("show model.pt2", "model.pt2 is not a file that mpq wrote: name a sensitivity file, a plan or an artifact"),
        ("demo digits --keep model.pt2/x", "cannot make the folder model.pt2/x: Not a directory; choose another with --keep"),
    ],
)
def test_a_file_that_is_not_there(fresh: Path, line: str, reason: str) -> None:
    assert refused(line, 3) == reason


@pytest.mark.parametrize("line", ["analyze model.pt2", f"{SEARCH} 4.5bits", "apply plan.yaml"])
@pytest.mark.parametrize(
    ("place", "reason"), [("nowhere/x", "No such file or directory"), ("test.pt/x", "Not a directory"), (".", "it is a folder")]
)
def test_a_place_that_cannot_be_written(folder: Path, line: str, place: str, reason: str) -> None:
    assert refused(f"{line} -o {place}", 3) == f"cannot write {place}: {reason}; choose another place with --output"


def test_a_read_only_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("mpq.cli.find_inputs.Path.open", refuse)
    assert refused("analyze model.pt2 -o other.jsonl", 3) == (
        "cannot write other.jsonl: Permission denied; choose another place with --output"
    )


def test_a_full_disk_leaves_no_part_of_an_artifact(folder: Path) -> None:
    Path("model.mpq.safetensors").unlink()
    with full_disk(10_000):
        assert refused("apply plan.yaml", 3) == ("cannot write model.mpq.safetensors: File too large; choose another place with --output")


def test_a_full_disk_stops_an_analysis_that_goes_on_later(fresh: Path, made: Path) -> None:
    line = "analyze model.pt2 --num-samples 24"
    header = (made / "model.sensitivity.jsonl").read_bytes().splitlines(keepends=True)[0]
    with full_disk(len(header) + 2000):
        ran = typed(line)
    assert ran.code == 3
    assert re.fullmatch(
        r"mpq: cannot write (model\.sensitivity\.jsonl|to \S+): File too large; free some space.*", ran.err.splitlines()[-1]
    )
    assert typed(line).code == 0


def test_a_full_disk_stops_a_search_in_one_line(folder: Path) -> None:
    Path("model.study.journal").unlink()
    with full_disk(2_000):
        ran = typed(f"{SEARCH} 5bits -o new.yaml")
    assert ran.code == 3
    assert ran.err.splitlines()[-1].startswith("mpq: ")
    assert "run the command again" in ran.err
    assert "new.yaml" not in files()
