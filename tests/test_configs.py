"""The files in configs/ are run, and say of the defaults what is true."""

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from mpq.config import AnalysisSettings, SearchSettings, read_config, settings_from
from mpq.demo import write_demo
from tests.cli.typed import ROOT, done, typed

CONFIGS = ROOT / "configs"


def test_each_file_is_run_by_a_test() -> None:
    assert sorted(path.name for path in CONFIGS.iterdir()) == ["ci_budget.yaml", "cnn.yaml", "default.yaml", "language_model.yaml"]


def test_the_default_file_holds_the_defaults() -> None:
    assert settings_from(AnalysisSettings, read_config(CONFIGS / "default.yaml", "analyze")) == AnalysisSettings()
    search = read_config(CONFIGS / "default.yaml", "search")
    assert (search.pop("budget"), search.pop("scope")) == ("4.5bits", "layers")
    assert settings_from(SearchSettings, search) == SearchSettings()


def test_the_default_file_names_every_setting() -> None:
    text = (CONFIGS / "default.yaml").read_text()
    names = {*asdict(AnalysisSettings()), *asdict(SearchSettings()), "num_samples", "seq_len", "batch_size", "max_error"} - {
        "storage",
        "start",
    }
    assert [name for name in sorted(names) if f"  {name}:" not in text and f"# {name}:" not in text] == []


@pytest.mark.parametrize(
    ("config", "demo", "quick"),
    [("default", "digits", "--num-samples 16"), ("cnn", "digits", "--num-samples 16"), ("language_model", "chars", "--num-samples 4")],
)
def test_a_config_leads_to_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, demo: str, quick: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_demo(demo, tmp_path)
    path = CONFIGS / f"{config}.yaml"
    done(f"analyze model.pt2 --calib calibration.pt --config {path} {quick}")
    done(f"search --config {path} --trials 2")
    budget = yaml.safe_load(path.read_text())["search"]["budget"]
    assert done(f"check plan.yaml --budget {budget}").code == 0


def test_the_ci_budget_passes_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_demo("digits", tmp_path)
    done("analyze model.pt2 --calib calibration.pt --num-samples 16")
    for budget, code, words in (("4.5bits", 0, ("ok ", "ok ", "ok ")), ("14bits", 1, ("ok ", "FAIL", "ok "))):
        done(f"search --budget {budget} --trials 1")
        ran = typed(f"check plan.yaml --config {CONFIGS / 'ci_budget.yaml'}")
        assert ran.code == code
        assert all(line.startswith(word) for line, word in zip(ran.out.splitlines(), words, strict=True))
