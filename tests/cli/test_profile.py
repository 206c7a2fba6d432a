"""`mpq profile`, the limit of time that it makes possible, and what `mpq bench` says of it."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from mpq.records import latency
from mpq.records.latency import LatencyFacts, write_latencies
from mpq.records.sensitivity import read_sensitivity
from mpq.search.costs import profile_facts, read_costs
from tests.cli.typed import done, refused

PATH = Path("model.latency.csv")


def written(*, machine: str | None = None, model: str | None = None, path: Path = PATH) -> None:
    """A profile of the analysis in this folder: a microsecond for every stored bit of a weight, 0.5 ms of rest."""
    table = read_sensitivity(Path("model.sensitivity.jsonl"))
    times = {(layer.name, scheme): 1e-3 * scheme.bits for layer in table.layers for scheme in table.header.candidates[layer.name]}
    own = str(table.header.model["sha256"])
    write_latencies(path, LatencyFacts("torch", machine or latency.this_machine(), "2", 1, model or own, 1, 0.5), times)


def test_a_profile_is_measured_and_limits_a_search(folder: Path) -> None:
    out = done("profile --seconds 0.02 --json").out
    assert json.loads(out)["output"] == str(PATH)
    table = read_sensitivity(Path("model.sensitivity.jsonl"))
    facts = profile_facts(PATH)
    assert facts is not None
    assert (facts.runtime, facts.batch, facts.model) == ("torch", 1, table.header.model["sha256"])
    name, known = read_costs(PATH)
    assert name == "latency_ms"
    assert set(known) == {(layer.name, scheme) for layer in table.layers for scheme in table.header.candidates[layer.name]}
    ran = done("search --max-latency 1s --trials 0 -o timed.yaml")
    assert "no --budget: every size within --max-latency is allowed" in ran.err
    assert yaml.safe_load(Path("timed.yaml").read_text())["evidence"]["costs"]["latency_ms"]["most"] == 1000


def test_the_time_of_a_plan_is_that_of_its_layers_and_the_rest(folder: Path) -> None:
    written()
    layers = len(read_sensitivity(Path("model.sensitivity.jsonl")).layers)
    most = 0.5 + 1e-3 * (4 * layers + 4)  # one layer may have 8 bits
    done(f"search --max-latency {most}ms --trials 0 -o timed.yaml")
    plan = yaml.safe_load(Path("timed.yaml").read_text())
    assert plan["evidence"]["costs"]["latency_ms"]["total"] == pytest.approx(most)
    done(f"search --budget 4.3bits --max-latency {most}ms --max-error 10 --trials 1 -o both.yaml")
    both = yaml.safe_load(Path("both.yaml").read_text())
    assert both["evidence"]["costs"]["latency_ms"]["total"] <= most
    assert "latency_ms of 0.4 cannot be met: 0.5 is spent outside of the layers" in refused("search --max-latency 400us --trials 0", 2)
    PATH.rename("other.csv")
    assert "run `mpq profile model.sensitivity.jsonl` first" in refused("search --max-latency 1ms --trials 0", 2)
    done("search --max-latency 1ms --cost other.csv --trials 0 -o timed.yaml")


def test_profiles_of_other_machines_and_models_and_other_cost_files_are_refused(folder: Path) -> None:
    written(machine="abacus, 1 processors")
    assert "was measured on 'abacus, 1 processors', this machine is" in refused("search --max-latency 1ms", 3)
    written(model="ab" * 32)
    assert "was measured on another model (sha256 abababababab…" in refused("search --max-latency 1ms", 3)
    Path("own.csv").write_text("layer,scheme,latency_ms\n")
    assert refused("search --max-latency 1ms --cost own.csv", 2) == (
        "own.csv was not written by mpq profile: give --cost own.csv=MOST instead of --max-latency"
    )
    assert "uses one profile" in refused("search --max-latency 1ms --cost a.csv --cost b.csv", 2)
    assert refused("profile --runtime abacus", 2) == "--runtime 'abacus' is unknown: use torch, onnxruntime, openvino"


@pytest.mark.usefixtures("quick_bench")
def test_bench_prints_the_predicted_time_next_to_the_measured_one(folder: Path) -> None:
    written()
    artifact = next(Path().glob("*.mpq.safetensors"))
    plan = yaml.safe_load(Path("plan.yaml").read_text())
    found = json.loads(done(f"bench {artifact} --batch-sizes 1 --json").out)
    table = read_sensitivity(Path("model.sensitivity.jsonl"))
    schemes = {name: entry if isinstance(entry, str) else entry["scheme"] for name, entry in plan["layers"].items()}
    bits = sum(
        scheme.bits for layer in table.layers for scheme in table.header.candidates[layer.name] if str(scheme) == schemes[layer.name]
    )
    assert found["predicted"]["seconds"] == pytest.approx((0.5 + 1e-3 * bits) / 1e3)
    assert found["predicted"]["measured"] == found["latency"]["batch 1"]["packed"]


def test_a_runtime_that_is_not_installed_is_refused_before_the_long_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert "this target needs openvino: " in refused("profile --runtime openvino", 3)
    assert not list(Path().glob("*.latency.csv"))


def test_times_of_layers_that_read_integers_do_not_limit_a_plan_without_them(folder: Path) -> None:
    table = read_sensitivity(Path("model.sensitivity.jsonl"))
    times = {(layer.name, scheme): 1.0 for layer in table.layers for scheme in table.header.candidates[layer.name]}
    facts = LatencyFacts("onnxruntime", latency.this_machine(), "2", 1, str(table.header.model["sha256"]), 1, 0.0, "1.31", activations=True)
    write_latencies(PATH, facts, times)
    assert profile_facts(PATH) == facts
    told = refused("search --max-latency 1s --activations off --trials 0", 2)
    assert f"{PATH} has the times of layers that read integers: leave out --activations off" in told
    done("search --max-latency 1s --trials 0 -o timed.yaml")


def test_the_runtime_of_an_export_is_measured(folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    out = done("profile --runtime onnxruntime --seconds 0.02")
    path = Path("model.onnxruntime.latency.csv")
    facts = profile_facts(path)
    assert facts is not None
    assert (facts.runtime, facts.rest_ms, facts.activations) == ("onnxruntime", 0.0, False)
    assert "all schemes in turn" in out.out
    table = read_sensitivity(Path("model.sensitivity.jsonl"))
    assert set(read_costs(path)[1]) == {(layer.name, scheme) for layer in table.layers for scheme in table.header.candidates[layer.name]}
