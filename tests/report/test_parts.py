import math
import re
from itertools import pairwise
from pathlib import Path

import pytest

from mpq.report import words
from mpq.report.blocks import block_of
from mpq.report.colors import DARK, LIGHT, ordered, ramp
from mpq.report.frontier_plot import NARROW, WIDE, Frame, frontier_plot
from mpq.report.report_input import Subject
from mpq.report.rows import LEVELS, facts_of, level_of
from mpq.report.scale import Scale, bit_ticks, decade_ticks, log_range
from mpq.search.frontier import frontier
from mpq.search.run import search
from tests.small import random_table, schemes

TEMPLATES = Path(words.__file__).parent / "templates"


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("model.layers.3.mlp.up_proj", "model.layers.3"),
        ("model.layers.3.experts.7.w1", "model.layers.3"),
        ("layer1.0.conv1", "layer1.0"),
        ("features.7", "features"),
        ("conv1", "conv1"),
        ("0", "0"),
    ],
)
def test_a_block_is_the_name_up_to_its_first_inner_number(name: str, block: str) -> None:
    assert block_of(name) == block


def test_schemes_are_ordered_by_bits_then_by_finer_groups() -> None:
    mixed = schemes("fp16", "int4-g32", "int8", "int4", "int2", "int4-g128", "int4-asym")
    assert [str(s) for s in ordered(mixed)] == ["int2", "int4", "int4-g128", "int4-g32", "int4-asym", "int8", "fp16"]


@pytest.mark.parametrize("stops", [LIGHT, DARK])
@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_a_ramp_has_as_many_colours_as_asked_for(stops: tuple[tuple[int, int, int], ...], count: int) -> None:
    colors = ramp(count, stops)
    assert len(set(colors)) == count
    assert all(re.fullmatch(r"#[0-9a-f]{6}", color) for color in colors)


def test_colour_deepens_with_the_error() -> None:
    levels = [level_of(10.0**-e, 1e-4, 1.0) for e in (5, 4, 3, 2, 1, 0)]
    assert levels == sorted(levels)
    assert (levels[0], levels[-1]) == (0, LEVELS - 1)
    assert level_of(math.inf, 1e-4, 1.0) == LEVELS - 1
    assert level_of(-1.0, 1e-4, 1.0) == level_of(1.0, 1.0, 1.0) == 0


def test_a_scale_keeps_what_lies_outside_at_its_ends() -> None:
    scale = Scale(1, 100, 0, 200)
    assert [scale(value) for value in (0.1, 1, 10, 100, 1000)] == [0, 0, 100, 200, 200]


def test_ticks_of_bits_keep_their_distance() -> None:
    ticks = bit_ticks(Scale(3.9, 9.5, 56, 906), apart=40)
    assert {"4", "5", "6", "8"} <= {tick.label for tick in ticks}
    assert all(b.at - a.at >= 40 for a, b in pairwise(ticks))


def test_a_range_of_less_than_a_decade_still_has_labels() -> None:
    assert [tick.label for tick in decade_ticks(Scale(0.0015, 0.006, 0, 100)) if tick.label] == ["0.002", "0.005"]


def test_a_range_without_a_positive_figure_is_still_a_range() -> None:
    low, high = log_range([0.0, -1.0, math.inf])
    assert 0 < low < high


@pytest.mark.parametrize("frame", [WIDE, NARROW])
@pytest.mark.parametrize("seed", range(6))
def test_everything_drawn_lies_inside_the_plot(frame: Frame, seed: int) -> None:
    found = random_table(seed)
    plan = search(found, "5bits").plan
    plot = frontier_plot(Subject("p", table=found, plan=plan, frontier=frontier(found, plan)), frontier(found, plan), frame)
    for mark in plot.marks:
        assert frame.left <= mark.x <= frame.width - frame.right
        assert frame.top <= mark.y <= frame.height - frame.bottom
    chosen = [mark for mark in plot.marks if mark.kind == "chosen"]
    assert [mark.title.split(":")[0] for mark in chosen] == ["this plan"]


def test_blocks_add_up_to_the_layers() -> None:
    found = random_table(1, count=9)
    plan = search(found, "5bits").plan
    facts = facts_of(Subject("p", table=found, plan=plan))
    assert sum(block.total for block in facts.blocks) == plan.size.layer_bytes
    assert sum(block.layers for block in facts.blocks) == len(facts.rows) == 9


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
        assert contrast(color[f"h{level}"], deep if level >= 7 else color["ink"]) >= 4.5, level
    assert contrast(color["plain"], color["card"]) >= 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123456, "0.01235"),
        (0.0, "0"),
        (1.234e-7, "1.23e-7"),
        (None, words.UNKNOWN),
        (math.nan, words.UNKNOWN),
        (math.inf, "∞"),
        (-0.5, f"{words.MINUS}0.5"),
    ],
)
def test_figures_have_four_digits(value: float | None, text: str) -> None:
    assert words.figure(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0 bytes"), (999, "999 bytes"), (184_296, "184.3 kB"), (7_693_660_160, "7.694 GB")])
def test_sizes_are_decimal(value: int, text: str) -> None:
    assert words.size(value) == text


def test_changes_are_signed_percentages() -> None:
    assert words.change(0.5, 1.0) == f"{words.MINUS}50%"
    assert words.change(1.5, 1.0) == "+50%"
    assert words.change(1.0, 0.0) == words.UNKNOWN
