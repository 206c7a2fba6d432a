from mpq.evidence.rows_reached import reach_lines


def test_the_rows_reached_are_told_with_what_others_add() -> None:
    facts = {"rows": 11_630, "reached": 769, "share": 0.110491}
    reach = "calibration reaches 6.6% of the rows of t (769 of 11,630); about 11.0% of new lookups hit other rows, which adds"
    for adds, words in (({"int4": 0.02, "int8": 0.0}, "0.02 at int4"), ({"int4": 0.0}, "nothing"), ({}, "nothing")):
        assert reach_lines({"unseen_rows": {"t": {**facts, "adds": adds}}}) == [f"{reach} {words}"]
    assert reach_lines(None) == reach_lines({}) == []
