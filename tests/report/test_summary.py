import math
from dataclasses import replace
from typing import Any

from mpq.records.evaluation import Evaluation, Figure
from mpq.records.plan import Plan
from mpq.report.report_input import Subject
from mpq.report.rows import facts_of
from mpq.report.summary import Tile, details, metric_name, noise_text, settled, tiles, verdict, warnings
from mpq.report.words import MINUS, TIMES
from mpq.search.frontier import frontier
from mpq.search.run import search
from tests.report.making import ARTIFACT
from tests.small import linear, schemes, table

FOUND = table([linear("a", 4, 64), linear("b", 4, 64)], {n: {"int4": [1.0, 3.0], "int8": [0.5, 0.5]} for n in "ab"})
INT2, INT4, INT8 = schemes("int2", "int4", "int8")


def plan(evidence: dict[str, Any] | None = None, **layers: Any) -> Plan:
    found = search(FOUND, "9bits").plan
    found = replace(found, layers=found.layers | layers)
    return replace(found, evidence={} if evidence is None else {"assignment": found.assignment} | evidence)


def test_a_metric_is_named_in_words() -> None:
    assert metric_name(Subject("x", table=FOUND)) == "KL divergence"
    assert metric_name(Subject("x", plan=plan({"metric": "own\x1b[2J"}))) == "own\\x1b[2J"
    assert metric_name(Subject("x", artifact=ARTIFACT)) == "error"


def test_the_verdict_is_the_decision() -> None:
    assert verdict(Subject("x", plan=plan({"decision": "exact: half the error"}))) == "Chosen: exact: half the error."


def test_without_a_decision_the_verdict_says_what_is_shown() -> None:
    assert verdict(Subject("x", plan=plan())).startswith("This plan has not been measured as a whole;")
    assert verdict(Subject("x", table=FOUND)).startswith("No plan yet:")
    assert verdict(Subject("x", artifact=ARTIFACT)).startswith("An artifact:")


def test_a_sound_report_warns_of_nothing() -> None:
    assert warnings(Subject("x", table=FOUND, plan=plan({"decision": "exact"}))) == []


def test_edited_layers_are_warned_of() -> None:
    edited = replace(plan({"decision": "exact"}), layers={"a": INT4, "b": INT8})
    (line,) = warnings(Subject("x", table=FOUND, plan=edited))
    assert line.startswith("The layers were edited after the plan was measured")


def test_bad_predictions_of_the_analysis_are_warned_of() -> None:
    found = table(FOUND.layers, {n: {"int4": 1.0, "int8": 0.5} for n in "ab"})
    found.finish = {"check": {"plans": 12, "additive": {"rank": 0.2, "bias": math.log(20.0)}}}
    (line,) = warnings(Subject("x", table=found))
    assert line.startswith("The sensitivities predict whole plans poorly: on 12 random plans")
    assert "the rank correlation with measured plans is 0.20 and predictions are 20 times too large" in line
    assert line.endswith(".")


def test_a_caution_of_the_data_is_repeated() -> None:
    cautious = replace(plan(), data={"caution": "only 3 samples"})
    assert warnings(Subject("x", plan=cautious)) == ["Only 3 samples."]
    both = replace(plan(), data={"caution": "only 3 samples", "shift": "easier samples"})
    assert warnings(Subject("x", plan=both)) == ["Only 3 samples.", "Easier samples."]


def test_rows_that_calibration_does_not_reach_are_told() -> None:
    partly = replace(plan(), evidence={**plan().evidence, "reach": "calibration reaches 6.6% of the rows of t"})
    assert "Calibration reaches 6.6% of the rows of t." in warnings(Subject("x", plan=partly))


def test_schemes_that_were_not_measured_are_warned_of() -> None:
    stray = "the chosen scheme was not measured, so the plan's predicted error is not known."
    assert warnings(Subject("x", table=FOUND, plan=plan(b=INT2))) == [f"b: {stray}"]
    assert warnings(Subject("x", table=FOUND, plan=plan(a=INT2, b=INT2))) == [f"a and 1 more: {stray}"]


def test_missing_figures_are_counted() -> None:
    found = table(FOUND.layers, {n: {"int4": 1.0, "int8": 0.5} for n in "ab"})
    del found.errors["a", INT4]
    (line,) = warnings(Subject("x", table=found))
    assert line == "The analysis is unfinished: 1 of 4 values are missing. Run mpq analyze again; it resumes."


def test_noise_is_said_in_one_line() -> None:
    assert noise_text(facts_of(Subject("x", table=FOUND))) == "2 of 4 values are within 2 standard errors of zero"


def test_layers_that_would_be_as_good_with_fewer_bits_are_listed() -> None:
    assert settled(Subject("x", table=FOUND, plan=plan(a=INT8, b=INT4))) == [
        {"layer": "a", "scheme": "int8", "cheaper": "int4", "gain": "1.5 ±1", "saved": "128 bytes"}
    ]
    assert settled(Subject("x", plan=plan())) == []


def test_a_gain_beyond_two_standard_errors_is_not_listed() -> None:
    found = table([linear("a", 4, 64)], {"a": {"int4": [2.0, 2.1], "int8": [1.0, 1.0]}})
    assert settled(Subject("x", table=found, plan=search(found, "9bits").plan)) == []


def test_details_say_how_the_figures_came_about() -> None:
    found = dict(details(Subject("t.jsonl", table=FOUND)))
    assert found["report of"] == "t.jsonl"
    assert found["model"] == "model.pt2 (export)"
    assert found["sha256"] == "a" * 64
    assert found["data"] == "8 samples"
    assert found["method"] == "metric kl_divergence, probabilities False, method measure, quantizer rtn"
    assert "made with" not in found  # the table names no versions
    assert dict(details(Subject("p.yaml", plan=plan())))["quantizer"] == "rtn"


def test_details_of_data_tell_calibration_from_held_out() -> None:
    header = replace(FOUND.header, data=FOUND.header.data | {"samples": {"calibration": 6, "held_out": 2}}, notes=("one", "two"))
    found = details(Subject("x", table=replace(FOUND, header=header)))
    assert ("data", "8 samples; 6 for calibration, 2 held out") in found
    assert [value for name, value in found if name == "note"] == ["one", "two"]


def test_tiles_of_a_table() -> None:
    subject = Subject("x", table=FOUND, frontier=frontier(FOUND))
    layers, figures, smallest, least = tiles(subject, facts_of(subject))
    assert (layers, figures) == (Tile("Layers", "2", "512 weights"), Tile("Figures", "4", "2 within noise of zero"))
    assert (smallest.name, smallest.note) == ("Smallest plan", "4.25 bits per weight, predicted 4")
    assert least == Tile("Least error", "1", "KL divergence at 8.25 bits per weight")


def test_tiles_of_a_measured_plan() -> None:
    measured = {"measured": {"held_out": 0.5, "held_out_stderr": 0.1}, "predicted": 0.25, "metric": "cosine"}
    best = {"best_uniform": {"scheme": "int4", "held_out": 1.0, "effective_bits": 4.25}}
    subject = Subject("x", plan=plan(measured | best))
    file, bits, unsearched, error, against = tiles(subject, facts_of(subject))
    assert file.name == "File"
    assert bits == Tile("Bits per weight", "8.25", bits.note)
    assert bits.note.endswith("over the file; budget 9bits (layers)")
    size = subject.plan.size if subject.plan is not None else None
    assert size is not None
    share = f"{100 * size.unsearched_bytes / size.file_bytes:.0f}%"
    assert unsearched == Tile("Not searched", unsearched.value, f"{share} of the file: unquantized tensors, program, header")
    assert error == Tile("Error on held-out data", "0.5", "±0.1 cosine distance; predicted 0.25")
    assert against == Tile("Against the best uniform", f"{MINUS}50%", "error, from 1 of uniform int4 at 4.25 bits")


def test_tiles_of_a_plan_that_was_only_predicted() -> None:
    subject = Subject("x", plan=plan({"predicted": 0.25, "optimality_gap": 0.01}))
    assert tiles(subject, facts_of(subject))[3:] == [
        Tile("Predicted error", "0.25", "error, not measured as a whole"),
        Tile("Proof", "within 1.00%", "for the table, under this budget"),
    ]
    proven = Subject("x", plan=plan({"optimality_gap": 0.0}))
    assert tiles(proven, facts_of(proven))[-1].value == "optimal"


def test_tiles_of_an_artifact() -> None:
    subject = Subject("x", artifact=ARTIFACT, artifact_bytes=2345)
    assert tiles(subject, facts_of(subject)) == [
        Tile("File", "2.345 kB", "2,345 bytes on disk"),
        Tile("Not searched", "2.209 kB", "94% of the file: unquantized tensors, program, header"),
        Tile("Layers", "136 bytes", f"7.53{TIMES} smaller than 1.024 kB"),
        Tile("Bits per weight", "4.25", "over 256 weights of the layers"),
    ]


def test_accuracy_stands_beside_the_divergence() -> None:
    figures = (Figure("kl_divergence", 0.01, stderr=0.001), Figure("accuracy", 0.9, 0.95), Figure("perplexity", 6.5, 6.0))
    subject = Subject("x", plan=plan(), evaluation=Evaluation(figures, 2000, "test.pt"))
    assert tiles(subject, facts_of(subject))[3:] == [
        Tile("Accuracy", "90.00%", "original 95.00%, on 2,000 samples of test.pt"),
        Tile("Perplexity", "6.5", "original 6, on 2,000 samples of test.pt"),
        Tile("KL divergence, test data", "0.01", "±0.001 on 2,000 samples of test.pt"),
    ]
