from dataclasses import replace
from pathlib import Path

import pytest

from mpq.errors import FormatError
from mpq.records.plan import Plan, plan_to_yaml, read_plan
from mpq.records.recovery_evidence import note_recovery
from mpq.search.run import search
from tests.small import random_table

FACTS = {"artifact": "r.mpq.safetensors", "before": 0.5, "after": 0.25, "share_of_gap": 0.5, "samples": 7}


def plan() -> Plan:
    found = search(random_table(1), "5bits").plan
    return replace(found, evidence={**found.evidence, "measured": {"held_out": 0.4}})


def test_the_evidence_is_added_and_every_other_line_stays(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    before = "# by hand\n" + plan_to_yaml(plan()).replace("layers:\n", "layers:  # mine\n", 1)
    path.write_text(before)
    note_recovery(path, FACTS)
    assert read_plan(path).evidence == {**plan().evidence, "recovery": FACTS}
    assert read_plan(path).held_out_error == 0.25
    note_recovery(path, {**FACTS, "after": 0.1})
    assert read_plan(path).held_out_error == 0.1
    text = path.read_text()
    assert text.count("recovery:") == 1
    added = {line for line in text.splitlines() if line not in before.splitlines()}
    assert added == {
        "  recovery:",
        "    artifact: r.mpq.safetensors",
        "    before: 0.5",
        "    after: 0.1",
        "    share_of_gap: 0.5",
        "    samples: 7",
    }


def test_a_plan_without_evidence_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(plan_to_yaml(replace(plan(), evidence={})))
    note_recovery(path, FACTS)
    assert read_plan(path).evidence == {"recovery": FACTS}


def test_evidence_on_one_line_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    text = plan_to_yaml(replace(plan(), evidence={})).replace("layers:\n", "evidence: {metric: kl_divergence}\nlayers:\n", 1)
    path.write_text(text)
    with pytest.raises(FormatError, match="the key 'evidence' appears twice; run `mpq search` again"):
        note_recovery(path, FACTS)
    assert path.read_text() == text
