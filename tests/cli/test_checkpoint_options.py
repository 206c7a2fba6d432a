"""State dicts on the command line: the choice of weights is kept from file to file, and every next step runs as it is printed."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mpq
from tests.cli.typed import done, files, refused, typed

MAKER = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))

class Makers:
    @staticmethod
    def make():
        return make()

def data():
    return torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
"""
SAVE = """
import torch, maker
torch.manual_seed(0)
first, second = maker.make().state_dict(), maker.make().state_dict()
second["extra"] = torch.ones(2)
torch.save({"net": first, "ema": {"module." + name: value for name, value in second.items()}}, "c.pt")
torch.save(first, "plain.pt")
torch.save(maker.data(), "d.pt")
"""
APPLY = "--no-recovery"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_bench: None) -> Path:
    """A folder with a checkpoint of two sets of weights, their builder and data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maker.py").write_text(MAKER)
    monkeypatch.delitem(sys.modules, "maker", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    exec(SAVE, {})
    return tmp_path


def next_step(err: str) -> str:
    return err.splitlines()[-1].partition("next: mpq ")[2].partition(";")[0]


def test_the_chosen_entry_is_kept_from_the_analysis_to_the_evaluation(folder: Path) -> None:
    reason = refused("analyze c.pt --builder maker:make --calib d.pt --checkpoint-key ema", 3)
    assert reason.endswith(
        "unexpected: module.extra; give the builder that made this checkpoint, or leave them out with --allow-unexpected"
    )
    told = done("analyze c.pt --builder maker:make --calib d.pt --checkpoint-key ema --allow-unexpected --candidates 4,8")
    note = "c.pt: 4 of 4 names renamed to those of the module, for example 'module.1.weight' to '1.weight'"
    assert told.err.count(note) == 1
    header = json.loads(Path("c.sensitivity.jsonl").read_text().splitlines()[0])
    assert (header["model"]["checkpoint_key"], header["model"]["allow_unexpected"]) == ("ema", True)
    assert note in header["notes"]
    assert done("search --budget 9bits --trials 2 --builder maker:make").err.count(note) == 1
    assert {"checkpoint_key: ema", "allow_unexpected: true"} <= {line.strip() for line in Path("plan.yaml").read_text().splitlines()}
    assert done(f"apply plan.yaml --builder maker:make {APPLY}").err.count(note) == 1
    ran = done("eval c.mpq.safetensors --data d.pt --builder maker:make --json")
    assert ran.err.count(note) == 1
    errors = {each["name"]: each["quantized"] for each in json.loads(ran.out)["figures"]}
    assert errors["relative_mse"] < 1e-3  # against the other set of weights it is near 2
    done("bench c.mpq.safetensors --data d.pt --builder maker:make --batch-sizes 1")
    stored = mpq.load("c.mpq.safetensors", __import__("maker").make()).state_dict()
    ema: dict[str, Tensor] = torch.load("c.pt")["ema"]
    assert (
        max(float((stored[name] - ema[f"module.{name}"]).abs().max()) for name in stored) < 0.04
    )  # a step of int4; the two sets are ten times as far apart


def test_another_entry_is_another_model_for_files_that_exist(folder: Path) -> None:
    done("analyze c.pt --builder maker:make --calib d.pt --checkpoint-key net --candidates 4,8")
    again = "analyze c.pt --builder maker:make --calib d.pt --checkpoint-key ema --allow-unexpected --candidates 4,8"
    before = files()
    ran = typed(again)
    assert (ran.code, files()) == (3, before)
    assert "holds an analysis with another model" in ran.err


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("analyze plain.pt --builder maker:make --calib d.pt", " --builder maker:make"),
        ("analyze plain.pt --model maker:Makers.make --calib d.pt", " --builder maker:Makers.make"),
        ("analyze plain.pt --builder maker:make --calib maker:data", " --builder maker:make --trust"),
    ],
)
def test_each_next_step_runs_as_it_is_printed(folder: Path, line: str, options: str) -> None:
    told = done(f"{line} --candidates 4,8")
    assert next_step(told.err) == f"search --budget 4.5bits{options}"
    told = done(f"{next_step(told.err)} --trials 2".replace("4.5bits", "9bits"))
    assert next_step(told.err) == f"apply plan.yaml{options}"
    told = done(f"{next_step(told.err)} {APPLY}")
    trusted = " --trust" if "--trust" in options else ""
    assert next_step(told.err) == f"eval plain.mpq.safetensors --data FILE{options.removesuffix(' --trust')}{trusted}"
    done(next_step(told.err).replace("FILE", "d.pt"))
    python = told.err.splitlines()[-1].partition("in Python: ")[2]
    built = options.split()[1].replace(":", ".")
    assert python == f"import maker; mpq.load('plain.mpq.safetensors', {built}())"
    found = eval(python.partition("; ")[2], {"mpq": mpq, "maker": __import__("maker")})
    assert float((found.state_dict()["1.weight"] - torch.load("plain.pt")["1.weight"]).abs().max()) < 0.04


def test_export_traces_with_the_data_that_the_plan_names(folder: Path) -> None:
    done("analyze plain.pt --builder maker:make --calib d.pt --candidates 4,8")
    done("search --budget 9bits --trials 0")
    Path("out").mkdir()
    done(f"apply plan.yaml --builder maker:make {APPLY} --to pt2")
    done(f"apply plan.yaml --builder maker:make {APPLY} -o out/m.mpq.safetensors --to pt2")
    done("export plain.mpq.safetensors --to pt2 --builder maker:make -o again.pt2")
    inputs = torch.load("d.pt")
    expected = mpq.load("plain.mpq.safetensors", __import__("maker").make())(inputs)
    for file in ("again.pt2", "plain.packed.pt2", "out/m.packed.pt2"):
        assert torch.allclose(torch.export.load(file).module()(inputs), expected, atol=1e-6)
    assert "has no example inputs to trace it with: add --data FILE" in refused(
        "export out/m.mpq.safetensors --to pt2 --builder maker:make -o no.pt2", 3
    )


def test_the_old_name_of_builder_works_and_is_not_shown(folder: Path) -> None:
    for command in ("analyze", "search", "apply", "check", "eval", "bench", "export"):
        shown = typed(f"{command} --help").out
        assert "--builder" in shown
        assert "--model" not in shown
    done("analyze plain.pt --model maker:make --calib d.pt --candidates 4,8")
    done("analyze plain.pt --model=maker:make --calib d.pt --candidates 4,8")
    assert "No such option" in typed("explain plan.yaml --model maker:make").err
