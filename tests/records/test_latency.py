from pathlib import Path

import msgspec
import pytest

from mpq.errors import FormatError, MismatchError, UsageError
from mpq.formats.scheme import Scheme
from mpq.records import latency
from mpq.records.latency import (
    ENDING,
    LatencyFacts,
    check_profile,
    milliseconds,
    profile_beside,
    read_latency_facts,
    this_machine,
    write_latencies,
)
from mpq.search.costs import profile_facts, read_costs

FACTS = LatencyFacts("torch", "a processor, 2 processors", "2.13.0", 2, "ab" * 32, 8, 0.5)
TIMES = {("a,b", Scheme("int8")): 0.25, ("c", Scheme("int4", 32)): 0.125}


def test_a_profile_is_a_cost_file_with_a_line_of_facts(tmp_path: Path) -> None:
    path = tmp_path / f"m{ENDING}"
    write_latencies(path, FACTS, TIMES)
    assert path.read_text().splitlines()[1:] == ["layer,scheme,latency_ms", '"a,b",int8,0.25', "c,int4-g32,0.125"]
    assert profile_facts(path) == FACTS
    assert read_costs(path) == ("latency_ms", TIMES)
    path.write_text(path.read_text() + "c,int4-g32,1\n")
    with pytest.raises(FormatError, match="line 5: 'c' under int4-g32 appears twice"):
        read_costs(path)


@pytest.mark.parametrize("line", ["# mpq profile: {}", "# mpq profile: [", FACTS.to_line().replace("0.5", "-1.0")])
def test_a_damaged_line_is_refused_with_the_remedy(line: str) -> None:
    with pytest.raises(FormatError, match=r"^p\.csv, line 1: .*: run `mpq profile` again$"):
        read_latency_facts(line, Path("p.csv"))


def test_other_cost_files_have_no_facts() -> None:
    assert read_latency_facts("layer,scheme,latency_ms\n", Path("p.csv")) is None


@pytest.mark.parametrize(("text", "value"), [("3ms", 3.0), ("800 us", 0.8), (".1s", 100.0)])
def test_times_are_read(text: str, value: float) -> None:
    assert milliseconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["3", "0ms", "-1ms", "3 hours", ""])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a time: write for example 3ms, 800us or 0\.1s"):
        milliseconds(text)


def test_a_profile_of_another_model_or_machine_is_refused_by_both_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "this_machine", lambda: FACTS.machine)
    check_profile(Path("p.csv"), FACTS, model="ab" * 32)
    with pytest.raises(MismatchError, match=r"another model \(sha256 abababababab…, this one has cdcdcdcdcdcd…\)"):
        check_profile(Path("p.csv"), FACTS, model="cd" * 32)
    monkeypatch.setattr(latency, "this_machine", lambda: "another, 4 processors")
    with pytest.raises(MismatchError, match="measured on 'a processor, 2 processors', this machine is 'another, 4 processors'"):
        check_profile(Path("p.csv"), FACTS, model="ab" * 32)


def test_the_machine_has_a_name_and_a_number_of_processors() -> None:
    assert this_machine().endswith(" processors")
    assert this_machine() == this_machine()


def test_the_profile_beside_a_file_is_that_of_its_model(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    assert profile_beside(plan) is None
    for name, model in (("a", "ab" * 32), ("b", "cd" * 32)):
        write_latencies(tmp_path / f"{name}{ENDING}", msgspec.structs.replace(FACTS, model=model), TIMES)
    assert profile_beside(plan, model="cd" * 32) == tmp_path / f"b{ENDING}"
    assert profile_beside(plan, model="ef" * 32) is None
    with pytest.raises(UsageError, match=r"2 profiles beside plan\.yaml \(a\.latency\.csv, b\.latency\.csv\): name one with --cost FILE"):
        profile_beside(plan)
