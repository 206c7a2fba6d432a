from pathlib import Path

import pytest

from mpq.cli.find_latency import latency_cost, predicted_latency, split_costs
from mpq.errors import UsageError
from mpq.formats.scheme import Scheme
from mpq.records.latency import LatencyFacts, this_machine, write_latencies

FACTS = LatencyFacts("torch", this_machine(), "2", 1, "ab" * 32, 8, 0.5)
TIMES = {("a", Scheme("int8")): 0.25, ("a", Scheme("int4")): 0.125, ("b", Scheme("int8")): 1.0}


def test_a_cost_without_a_limit_is_the_profile_of_a_limit_of_time() -> None:
    assert split_costs(["a.csv=3", "b.csv"], timed=True) == (["a.csv=3"], Path("b.csv"))
    assert split_costs(["a.csv=3", "b.csv"], timed=False) == (["a.csv=3", "b.csv"], None)
    assert split_costs(None, timed=True) == ([], None)
    with pytest.raises(UsageError, match=r"--cost a\.csv and --cost b\.csv: --max-latency uses one profile"):
        split_costs(["a.csv", "b.csv"], timed=True)


def test_a_time_is_a_limit_of_the_profile_in_its_unit(tmp_path: Path) -> None:
    path = tmp_path / "m.latency.csv"
    write_latencies(path, FACTS, TIMES)
    assert latency_cost("0.1s", None, tmp_path / "m.sensitivity.jsonl", model="ab" * 32, activations=True) == {str(path): 100.0}
    assert latency_cost("3ms", path, Path("elsewhere"), model="ab" * 32, activations=True) == {str(path): 3.0}


def test_an_artifact_has_the_time_of_its_schemes(tmp_path: Path) -> None:
    artifact, schemes = tmp_path / "a.mpq.safetensors", {"a": Scheme("int4"), "b": Scheme("int8")}
    assert predicted_latency(artifact, schemes, model="ab" * 32) is None
    write_latencies(tmp_path / "m.latency.csv", FACTS, TIMES)
    assert predicted_latency(artifact, schemes, model="ab" * 32) == (1.625, 8)
    assert predicted_latency(artifact, schemes, model="cd" * 32) is None
    assert predicted_latency(artifact, {"a": Scheme("int2")}, model="ab" * 32) is None
