from dataclasses import replace

import numpy as np

from mpq.search.final_decision import Finalist
from mpq.search.result import SearchResult, finalist_cells
from mpq.search.run import search
from tests.small import random_table

TABLE = random_table(0, count=400)
UNMEASURED = search(TABLE, "6bits")
FINALISTS = (
    Finalist("exact", (0,), False, 4.5, 0.5, np.array([0.25, 0.75]), np.array([0.5, 1.0])),
    Finalist("int4", (1,), True, 4.25, 1.5, np.array([1.0, 2.0]), np.array([2.0, 4.0])),
)
MEASURED = SearchResult(UNMEASURED.plan, FINALISTS, "exact: least", 9)


def test_a_result_is_one_line_or_a_small_page_however_large_the_model() -> None:
    assert repr(UNMEASURED).startswith("<SearchResult: Plan: 400 layers, ")
    assert repr(UNMEASURED).endswith("; chosen: table optimum: no plan was measured>")
    assert len(repr(MEASURED)) < 300
    assert len(MEASURED._repr_html_()) < 6000


def test_the_page_of_a_measured_result_has_its_finalists() -> None:
    assert "uniform int4" in MEASURED._repr_html_()
    assert "finalist" not in UNMEASURED._repr_html_()


def test_the_frame_has_a_row_for_each_finalist() -> None:
    frame = MEASURED.frame()
    assert frame[["name", "uniform", "effective_bits", "predicted", "calibration", "held_out"]].to_dict("records") == [
        {"name": "exact", "uniform": False, "effective_bits": 4.5, "predicted": 0.5, "calibration": 0.5, "held_out": 0.75},
        {"name": "int4", "uniform": True, "effective_bits": 4.25, "predicted": 1.5, "calibration": 1.5, "held_out": 3.0},
    ]
    assert frame["held_out_stderr"].tolist() == [0.25, 1.0]
    assert UNMEASURED.frame().empty


def test_bits_are_those_of_the_report_which_reads_them_from_the_plan() -> None:
    finalist = replace(FINALISTS[0], effective_bits=4.496452)
    exact = finalist_cells(replace(MEASURED, finalists=(finalist,)).rows()[0])
    assert exact == finalist_cells({"uniform": False, **finalist.row()})
    assert exact[1] == "4.496"


def test_a_finalist_in_texts_and_on_one_line() -> None:
    assert finalist_cells(MEASURED.rows()[1]) == ["uniform int4", "4.250", "1.5", "1.5 ±0.5", "3 ±1"]
    assert repr(FINALISTS[0]) == "<Finalist exact: 4.5 bits per weight, 0.75 ±0.25 on held-out samples>"
