"""Reports to test: a plan with evidence, an artifact's header, and all that can be known together."""

from dataclasses import replace
from typing import Any

from mpq.records.artifact import ArtifactHeader
from mpq.records.plan import Plan
from mpq.records.sensitivity import Sensitivity
from mpq.report.report_input import Subject
from mpq.search.frontier import frontier
from mpq.search.run import search
from tests.small import linear, schemes

ARTIFACT = ArtifactHeader(
    model={"path": "net/b.pt2", "kind": "export"},
    quantizer="rtn",
    layers=(linear("a", 4, 64),),
    schemes={"a": schemes("int4")[0]},
    aliases={},
    config={},
)


def with_evidence(plan: Plan) -> Plan:
    rows = [
        {
            "name": name,
            "effective_bits": bits,
            "predicted": e,
            "calibration": e,
            "calibration_stderr": e / 4,
            "held_out": e,
            "held_out_stderr": e / 3,
        }
        for name, bits, e in (("exact", plan.size.effective_bits, 0.5), ("int4", 4.2, 1.5))
    ]
    evidence: dict[str, Any] = {
        "assignment": plan.assignment,
        "metric": "kl_divergence",
        "predicted": 0.5,
        "measured": {"calibration": 0.5, "held_out": 0.5, "held_out_stderr": 0.1},
        "best_uniform": {"scheme": "int4", "effective_bits": 4.2, "held_out": 1.5},
        "optimality_gap": 0.0,
        "decision": "exact: 0.333 of the held-out error of the best uniform plan (int4), beyond noise",
        "finalists": rows,
    }
    return replace(plan, evidence=evidence)


def whole(found: Sensitivity) -> Subject:
    plan = with_evidence(search(found, "5bits").plan)
    return Subject("plan.yaml", table=found, plan=plan, frontier=frontier(found, plan, count=24))
