from dataclasses import replace
from pathlib import Path

import pytest

from mpq.cli.search_result import print_result, print_sizes
from mpq.records.sensitivity_header import Rest
from mpq.search.run import SearchResult, search
from tests.search.measuring import FakeMeasurer
from tests.small import random_table

TABLE = random_table(3, count=8)
PLAN = search(TABLE, "5bits").plan


def said(capsys: pytest.CaptureFixture[str], result: SearchResult, **options: bool) -> str:
    print_result(result, TABLE, limited=options.get("limited", False))
    return capsys.readouterr().err


def test_what_is_known_of_a_plan_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    evidence = {
        "optimality_gap": 0.01,
        "unseen_rows": 0.25,
        "reach": "calibration reaches 1% of the rows of t",
        "predicted": 0.5,
        "rest": {"dtype": "bf16", "held_out": 0.001, "held_out_stderr": 0.0002},
        "costs": {"latency_ms": {"total": 1.25, "most": 2.0}},
        "asked": {"name": "held-out error", "value": 0.5, "most": 0.75},
    }
    text = said(capsys, SearchResult(replace(PLAN, evidence=evidence), (), "why", 7))
    assert text.splitlines() == [
        "chosen: why",
        "table optimum: within 1.00% of the least predicted error; 7 plans measured",
        "calibration reaches 1% of the rows of t",
        "unseen rows add 0.25 to the predicted 0.5",
        "unquantized tensors in bf16: alone they cost kl_divergence 0.001 ±0.0002 on held-out samples",
        "latency_ms: 1.25 of at most 2",
        "held-out error: 0.5 of at most 0.75",
    ]


def test_unseen_rows_that_add_nothing_are_not_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    evidence = {"optimality_gap": 0.0, "unseen_rows": 0.0, "predicted": 0.5}
    assert "unseen rows" not in said(capsys, SearchResult(replace(PLAN, evidence=evidence), (), "why", 7))


def test_finalists_are_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    result = search(TABLE, "5bits", measurer=FakeMeasurer(TABLE), trials=2)
    print_result(result, TABLE, limited=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "kl_divergence by finalist"
    assert len(lines) == 2 + len(result.finalists)


def test_sizes_name_what_is_not_searched(capsys: pytest.CaptureFixture[str]) -> None:
    plan = replace(PLAN, rest=Rest(500, 256, 40, 512, "bf16"))
    print_sizes(SearchResult(plan, (), "why", 0), Path("plan.yaml"))
    size = plan.size
    rest = f"{size.file_bytes - size.layer_bytes:,} bytes, {1 - size.layer_bytes / size.file_bytes:.1%} of the file"
    assert capsys.readouterr().err.splitlines() == [
        f"wrote plan.yaml: {size.effective_bits:.4g} bits per weight over the layers ({size.layer_bytes:,} bytes),",
        f"{size.file_effective_bits:.4g} over the file ({size.file_bytes:,} bytes)",
        f"not searched: {rest} (unquantized tensors in bf16, program and header)",
    ]
