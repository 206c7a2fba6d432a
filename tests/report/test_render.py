import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from mpq.errors import UsageError
from mpq.records.plan import Plan
from mpq.records.sensitivity import Sensitivity
from mpq.report.render import render
from mpq.report.report_input import Subject
from mpq.search.frontier import frontier
from mpq.search.run import search
from tests.small import linear, random_table, table

VOID = {"meta", "link", "input", "br", "hr", "img"}


class Page(HTMLParser):
    """Collects tags, ids and texts, and checks that every tag is closed in its place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def ids(self) -> set[str]:
        return {attributes["id"] or "" for _, attributes in self.tags if "id" in attributes}


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
    return Subject("plan.yaml", table=found, plan=plan, frontier=frontier(found, plan))


def test_a_full_report_has_every_section_and_is_well_formed() -> None:
    page = Page(render(whole(random_table(1))))
    assert {"frontier", "margin", "finalists", "bits", "heat", "layers", "noise", "made"} <= page.ids


def test_nothing_is_loaded_from_anywhere() -> None:
    text = render(whole(random_table(1)))
    assert not re.search(r"(?:src|href|url)\s*[=(]\s*[\"']?(?:https?:)?//", text)
    assert not [tag for tag, attributes in Page(text).tags if tag in ("script", "link", "img", "iframe") and "src" in attributes]
    assert "default-src 'none'" in text


def test_a_table_alone_shows_the_best_plan_near_four_and_a_half_bits() -> None:
    found = random_table(2)
    subject = Subject("t.sensitivity.jsonl", table=found, frontier=frontier(found))
    page = Page(render(subject))
    assert "margin" not in page.ids
    assert subject.shown is not None
    assert f"best plan of {subject.shown.effective_bits:.4g} bits" in page.text


def test_a_plan_alone_shows_bits_and_layers() -> None:
    page = Page(render(Subject("plan.yaml", plan=search(random_table(3), "5bits").plan)))
    assert {"bits", "layers"} <= page.ids
    assert not {"frontier", "heat"} & page.ids


def test_an_unfinished_table_says_what_is_missing() -> None:
    found = random_table(4, count=2)
    del found.errors[next(iter(found.errors))]
    assert "The analysis is unfinished: 1 of 10 figures are missing." in render(Subject("t.jsonl", table=found))


def test_measurements_of_other_schemes_are_left_out_with_a_warning() -> None:
    found = random_table(5)
    plan = with_evidence(search(found, "5bits").plan)
    other = replace(plan, layers=search(found, "7bits").plan.layers)
    page = Page(render(Subject("plan.yaml", table=found, plan=other, frontier=frontier(found, other))))
    assert "The layers were edited after the plan was measured" in page.text
    assert "finalists" not in page.ids


def test_names_cannot_break_out_of_the_page() -> None:
    evil = '</script><img src=x onerror="alert(1)">'
    found = table([linear(evil, 4, 64), linear("b", 4, 64)], {evil: {"int4": 1.0, "int8": 0.5}, "b": {"int4": 1.0, "int8": 0.5}})
    text = render(whole(found))
    assert "<img" not in text
    assert evil not in text
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["names"][0] == evil


def test_figures_that_are_not_finite_are_drawn_as_infinity() -> None:
    found = table([linear("a", 4, 64), linear("b", 4, 64)], {n: {"int2": float("nan"), "int4": 1.0, "int8": 0.5} for n in "ab"})
    page = Page(render(Subject("t.jsonl", table=found, frontier=frontier(found))))
    assert "∞" in page.text


def test_errors_of_zero_and_below_are_drawn_without_failing() -> None:
    found = table([linear("a", 4, 64), linear("b", 4, 64)], {n: {"int4": 0.0, "int8": -1e-9, "fp16": -2e-9} for n in "ab"})
    assert "frontier" in Page(render(Subject("t.jsonl", table=found, frontier=frontier(found)))).ids


def test_one_layer_with_one_scheme_is_enough() -> None:
    found = table([linear("a", 4, 64)], {"a": {"int4": 1.0}})
    assert "heat" in Page(render(whole(found))).ids


def test_five_hundred_layers_stay_under_two_megabytes() -> None:
    found = random_table(6, count=500)
    subject = Subject("t.jsonl", table=found, frontier=frontier(found, count=96))
    assert len(render(subject).encode()) < 2_000_000


def test_controls_have_labels_and_tables_have_scopes() -> None:
    page = Page(render(whole(random_table(1))))
    labels = {attributes.get("for") for tag, attributes in page.tags if tag == "label"}
    ranges = [attributes for tag, attributes in page.tags if tag == "input" and attributes["type"] == "range"]
    assert all(attributes["id"] in labels for attributes in ranges)
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")
    plots = [attributes for tag, attributes in page.tags if tag == "svg" and (attributes.get("class") or "").startswith("plot")]
    assert plots
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in plots)


def test_a_report_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="a report needs a sensitivity file, a plan or an artifact"):
        Subject("x")
