import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mpq.records.recovery_lines import Evaluated
from mpq.report import render as render_file
from mpq.report.colors import HEAT_DARK, HEAT_LIGHT
from mpq.report.render import render
from mpq.report.report_input import Subject
from mpq.report.rows import LEVELS
from mpq.search.frontier import frontier
from mpq.search.run import search
from tests.report.making import whole, with_evidence
from tests.small import linear, random_table, table

TEMPLATES = Path(render_file.__file__).parent / "templates"
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


def test_a_full_report_has_every_section_and_is_well_formed() -> None:
    page = Page(render(whole(random_table(1))))
    assert {"frontier", "margin", "finalists", "bits", "heat", "layers", "noise", "made"} <= page.ids


def test_a_training_is_drawn_with_what_it_changed_on_held_out_samples() -> None:
    subject = whole(table([linear("a", 4, 64)], {"a": {"int4": 1.0, "int8": 0.5}}))
    assert subject.plan is not None
    evidence = {**subject.plan.evidence, "recovery": {"before": 0.4321, "after": 0.1234, "standard_error": 0.01}}
    lines = (Evaluated(0, 20, None, 0.4, 3.0, 1.0, "rates tried"), Evaluated(20, 20, 0.3, 0.1, 3.0, 1.0))
    page = render(replace(subject, plan=replace(subject.plan, evidence=evidence), training=lines))
    assert page.count('<path class="loss" d="M') == 3  # two plots and the legend
    assert re.search(r"decided: 0\.4321 before, 0\.1234\s+±0\.01 after", page)
    assert "<td>rates tried</td>" in page
    assert 'id="training"' not in render(subject)
    noted_otherwise = replace(subject.plan, evidence={**subject.plan.evidence, "recovery": ["no mapping"]})
    assert 'id="training"' in render(replace(subject, plan=noted_otherwise, training=lines))


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
    assert f"best plan at {subject.shown.effective_bits:.4g} bits" in page.text


def test_a_plan_alone_shows_bits_and_layers() -> None:
    page = Page(render(Subject("plan.yaml", plan=search(random_table(3), "5bits").plan)))
    assert {"bits", "layers"} <= page.ids
    assert not {"frontier", "heat"} & page.ids


def test_an_unfinished_table_says_what_is_missing() -> None:
    found = random_table(4, count=2)
    del found.errors[next(iter(found.errors))]
    assert "The analysis is unfinished: 1 of 10 values are missing." in render(Subject("t.jsonl", table=found))


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


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_what_it_lies_on(dark: bool) -> None:
    parts = (TEMPLATES / "palette.css.j2").read_text().split("@media")
    color = dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", parts[dark]))
    for text in ("ink", "muted", "accent", "plan", "good", "bad"):
        assert contrast(color[text], color["card"]) >= 4.5, text
        assert contrast(color[text], color["page"]) >= 4.5, text
    deep = "#17120e" if dark else "#ffffff"
    for level in range(LEVELS):
        assert contrast((HEAT_DARK if dark else HEAT_LIGHT)[level], deep if level >= 7 else color["ink"]) >= 4.5, level
    assert contrast(color["plain"], color["card"]) >= 3


def test_a_compared_plan_stands_on_the_plot_and_in_its_table() -> None:
    found = random_table(1)
    other = search(found, "6bits").plan
    page = render(replace(whole(found), other=("old.yaml", other)))
    assert "old.yaml, predicted" in page
    assert "old.yaml, held-out" not in page
    assert page.count('<g class="compared predicted">') == 3  # in two frames, and in the legend
    assert f'<th scope="row">old.yaml</th><td>{other.size.effective_bits:.3f}</td><td>{other.size.layer_bytes:,}</td>' in page


def test_the_heat_map_says_what_each_color_stands_for() -> None:
    page = render(whole(random_table(1)))
    legend = page[page.index('<ul class="legend key"') :]
    legend = legend[: legend.index("</ul>")]
    assert legend.count("<li>") == LEVELS + 1
    assert "not measured" in legend


def test_coded_layers_are_said_to_be_smaller_in_the_file_only() -> None:
    found = table([linear("a", 64, 64)], {"a": {"ec4.5": 1.0, "int8": 0.5}})
    sentence = "File bytes, loaded bytes and time are three budgets. Coded layers (ec) are smaller in the file only"
    plans = [search(found, budget).plan for budget in ("5bits", "9bits")]
    assert [sentence in Page(render(Subject("p", table=found, plan=plan))).text for plan in plans] == [True, False]


def test_limits_are_a_column_with_their_total() -> None:
    found = table([linear("a", 4, 64), linear("b", 2, 64)], {name: {"int4": 1.0} for name in "ab"})
    subject = Subject("p", table=found, plan=search(found, "16bits").plan, limits={"a": 3.25})
    page = Page(render(subject)).text
    assert "All layers with a limit take 4.250 bits per weight; their limit is 3.250." in page
    assert "3.250" in page.partition("their limit is 3.250.")[2]
