"""No command writes over what it reads, or over what is not a plain file, and each says so before it begins."""

import os
from pathlib import Path

import pytest

from tests.cli.typed import done, refused

ANALYZE = "analyze model.pt2 --calib calibration.pt --num-samples 24"
SEARCH = "search --budget 5bits --trials 0"
OVER_AN_INPUT = [
    (ANALYZE, "-o", "model.pt2"),
    (ANALYZE, "-o", "calibration.pt"),
    ("analyze model.pt2", "-o", "calibration.pt"),  # found by itself
    (f"{ANALYZE} --config settings.yaml", "-o", "settings.yaml"),
    (f"{SEARCH} --reference model.pt2", "-o", "model.sensitivity.jsonl"),
    (SEARCH, "-o", "model.sensitivity.jsonl"),
    (SEARCH, "-o", "model.pt2"),  # named by the analysis
    (SEARCH, "-o", "calibration.pt"),
    (f"{SEARCH} --from plan.yaml", "-o", "plan.yaml"),
    ("search model.sensitivity.jsonl --cost costs.csv=1 --budget 5bits --trials 0", "-o", "costs.csv"),
    ("search --max-error 1", "-o", "model.pt2"),
    ("apply plan.yaml", "-o", "plan.yaml"),
    ("apply plan.yaml", "-o", "model.pt2"),
    ("apply plan.yaml", "-o", "calibration.pt"),
    ("apply plan.yaml --reference same.pt2", "-o", "same.pt2"),
    ("export model.mpq.safetensors --to pt2", "-o", "model.mpq.safetensors"),
    ("export model.mpq.safetensors --to pt2", "-o", "model.pt2"),
    ("export plan.yaml --to torchao", "-o", "plan.yaml"),
    ("export model.mpq.safetensors --to pt2 --data test.pt", "-o", "test.pt"),
    ("report plan.yaml", "-o", "plan.yaml"),
    ("report plan.yaml", "-o", "model.sensitivity.jsonl"),
    ("report model.mpq.safetensors", "-o", "model.mpq.safetensors"),
    ("check plan.yaml", "--junit", "plan.yaml"),
    ("check plan.yaml --baseline old.yaml", "--junit", "old.yaml"),
    ("check plan.yaml --budgets budgets.yaml", "--junit", "budgets.yaml"),
    ("check model.mpq.safetensors --data test.pt --max-error 1", "--junit", "test.pt"),
]
WRITERS = [
    (ANALYZE, "-o"),
    (SEARCH, "-o"),
    ("search --max-error 1", "-o"),
    ("apply plan.yaml", "-o"),
    ("export model.mpq.safetensors --to pt2", "-o"),
    ("export plan.yaml --to torchao", "-o"),
    ("report plan.yaml", "-o"),
    ("schema plan", "-o"),
    ("check plan.yaml", "--junit"),
]


@pytest.fixture
def around(folder: Path) -> Path:
    Path("same.pt2").hardlink_to("model.pt2")
    Path("old.yaml").write_bytes(Path("plan.yaml").read_bytes())
    Path("settings.yaml").write_text("analyze: {seed: 0}\n")
    Path("costs.csv").write_text("layer,scheme,cost\n")
    done("check --init --budgets budgets.yaml")
    return folder


@pytest.mark.parametrize(("line", "option", "place"), OVER_AN_INPUT, ids=lambda text: text)
@pytest.mark.parametrize("name", ["itself", "hard link", "other path"])
def test_an_input_is_refused_as_output(around: Path, line: str, option: str, place: str, name: str) -> None:
    content, output = Path(place).read_bytes(), place
    if name == "hard link":
        output = "linked"
        Path(output).hardlink_to(place)
    elif name == "other path":
        output = f"../{around.name}/{place}"
    reason = refused(f"{line} {option} {output}", 3)
    assert reason.startswith(f"cannot write {output}: it is an input of this command (")
    assert reason.endswith("; choose another place with --output")
    assert Path(place).read_bytes() == content


@pytest.mark.skipif(os.name != "posix", reason="pipes are files on POSIX systems")
@pytest.mark.parametrize(("line", "option"), WRITERS, ids=lambda text: text)
def test_links_pipes_and_standard_output_are_refused(folder: Path, line: str, option: str) -> None:
    os.mkfifo("pipe")
    Path("target").write_text("old")
    Path("link").symlink_to("target")
    Path("dangling").symlink_to("nowhere")
    for place, why in (("pipe", "it is a pipe"), ("link", "it is a link to target"), ("dangling", "it is a link to nowhere")):
        assert refused(f"{line} {option} {place}", 3).startswith(f"cannot write {place}: {why}; ")
    assert refused(f"{line} {option} -", 3).startswith("cannot write -: mpq writes files, not to standard output; ")
    assert refused(f"{line} {option} /dev/stdout", 3).startswith("cannot write /dev/stdout: it is a link to ")
    assert Path("pipe").is_fifo()
    assert Path("link").is_symlink()
    assert Path("target").read_text() == "old"
    assert not Path("nowhere").exists()


def test_a_file_in_the_folder_of_a_model_is_an_input(folder: Path) -> None:
    Path("deep").mkdir()
    Path("deep/config.json").write_text("{}")
    assert refused("analyze deep -o deep/config.json", 3).startswith("cannot write deep/config.json: it is an input of this command")


def test_what_a_target_writes_next_to_its_output_is_looked_at_too(folder: Path) -> None:
    pytest.importorskip("openvino")
    Path("model.bin").hardlink_to("calibration.pt")
    reason = refused("export model.mpq.safetensors --to openvino -o model.xml --data calibration.pt", 3)
    assert reason.startswith("cannot write model.bin: it is an input of this command (calibration.pt)")
