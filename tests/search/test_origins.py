from pathlib import Path

from mpq.search.origins import analysis_of, data_of
from tests.small import random_table

TABLE = random_table(0)


def test_a_plan_repeats_how_the_data_is_read_and_split_and_nothing_else() -> None:
    assert data_of(TABLE) == {"source": "data.pt", "sha256": "b" * 64, "held_out": 0.25, "seed": 0}  # no description


def test_a_plan_names_its_analysis_by_file_and_hash() -> None:
    assert analysis_of(TABLE) == {"path": None, "sha256": TABLE.sha256}
    TABLE.path = Path("folder/a.sensitivity.jsonl")
    assert analysis_of(TABLE)["path"] == "a.sensitivity.jsonl"
