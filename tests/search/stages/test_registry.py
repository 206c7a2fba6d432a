from pathlib import Path

import pytest

from mpq.search import stages
from mpq.search.run import search
from mpq.search.stages.registry import stage_kinds
from tests.search.measuring import FakeMeasurer
from tests.small import random_table

OWN = '''
"""Random plans."""
from mpq.search.stages.base import Proposal, Stage, Turn


class RandomStage(Stage):
    name = "random"
    place = 40
    share = 0.3

    def propose(self, turn: Turn) -> Proposal | None:
        for _ in range(100):
            choice = tuple(int(turn.generator.integers(len(group.options))) for group in self.setting.problem.groups)
            if choice not in turn.known and self.setting.problem.fits(choice):
                return Proposal(lambda _, choice=choice: choice)
        return None
'''


STORED = {"slopes": "gradient search", "knobs": "re-weighted table", "learn": "learned errors", "swap": "layer swaps"}


def test_the_stages_come_in_order_and_keep_the_names_of_stored_studies() -> None:
    titles = {kind.name: kind.title for kind in stage_kinds()}
    assert [name for name in titles if name in STORED] == list(STORED)
    assert {name: titles[name] for name in STORED} == STORED


@pytest.mark.parametrize("kind", stage_kinds(), ids=lambda kind: kind.name)
def test_a_stage_says_what_it_does_and_takes_a_share(kind: type[stages.base.Stage]) -> None:
    assert kind.__doc__
    assert 0 <= kind.share < 1
    assert 0 <= kind.share_with_slopes < 1


def test_a_new_stage_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "random_plans.py").write_text(OWN)
    monkeypatch.setattr(stages, "__path__", [*stages.__path__, str(tmp_path)])
    table = random_table(1, count=6)
    measurer = FakeMeasurer(table)
    found = search(table, "5bits", measurer=measurer, trials=20)
    names = [kind.name for kind in stage_kinds()]
    assert names.index("learn") < names.index("random") < names.index("swap")
    assert len(measurer.tried) >= 20
    assert found.plan.size.effective_bits <= 5
