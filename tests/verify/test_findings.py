import json

from mpq.verify.findings import KINDS, Finding, OutputDifference, Verification, verification_in

FAILED = Verification(
    "m",
    "p 1",
    (Finding("codes", "a", "its codes differ"), Finding("outputs", "o", "differ")),
    (OutputDifference("o", 0.5, 0.1),),
    3,
    2,
    ("note",),
)


def test_a_record_reads_back() -> None:
    record = json.loads(json.dumps(FAILED.to_dict()))
    assert record["passed"] is False
    assert verification_in(record) == FAILED


def test_one_line_says_the_first_finding() -> None:
    assert FAILED.line == "m: p 1: codes in 'a': its codes differ (1 more findings)"
    assert Verification("m", "p 1", (), (OutputDifference("o", 0.25, 0.5),)).line == (
        "m: p 1 loads it correctly: outputs differ by at most 0.25 of their largest value"
    )


def test_every_kind_has_words() -> None:
    assert all(words and not words.endswith(".") for words in KINDS.values())
