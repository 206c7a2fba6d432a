import pytest

from mpq.records.finalist_names import PLAIN, plain_evidence, plain_name
from mpq.search.stages.registry import stage_kinds


def test_every_stage_has_a_plain_name_which_its_finalist_bears() -> None:
    for kind in stage_kinds():
        assert kind.title == PLAIN[kind.name]


@pytest.mark.parametrize(
    ("name", "plain"),
    [("exact", "table optimum"), ("lowest", "least measured error"), ("table optimum", "table optimum"), ("int4-g32", "int4-g32")],
)
def test_names_of_earlier_versions_become_plain_and_others_stay(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def test_evidence_of_an_earlier_version_reads_as_if_it_were_new() -> None:
    rows = [{"name": "exact", "x": 1}, {"name": "int4", "x": 2}]
    assert plain_evidence({"decision": "exact: expected error 0.3 of ...", "finalists": rows, "metric": "m"}) == {
        "decision": "table optimum: expected error 0.3 of ...",
        "finalists": [{"name": "table optimum", "x": 1}, {"name": "int4", "x": 2}],
        "metric": "m",
    }
    assert rows[0]["name"] == "exact"
    assert plain_evidence({}) == {}
