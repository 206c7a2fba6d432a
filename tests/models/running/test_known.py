from pathlib import Path

import pytest
import torch

from mpq.errors import OutputError
from mpq.models.memory.store import Store
from mpq.models.running.known import opened, scope_for
from tests.models.small import data

PARTS = {"codes": torch.zeros(2, dtype=torch.uint8)}


def test_a_scope_is_that_of_its_model_and_its_data_and_how_they_are_batched() -> None:
    store = Store()
    scope_for(store, "model", data(8)).put("a", PARTS)
    assert scope_for(store, "model", data(8)).get("a", 2) is not None
    others = [("other", data(8)), ("model", data(8, batch_size=3)), ("model", data(9)), ("model", None)]
    assert [scope_for(store, model, samples).get("a", 2) for model, samples in others] == [None] * 4


def test_without_a_folder_nothing_lasts(tmp_path: Path) -> None:
    opened(None).put("a", PARTS)
    assert opened(None).get("a", 2) is None
    opened(tmp_path / "cache").put("a", PARTS)
    assert opened(tmp_path / "cache").get("a", 2) is not None


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    path.write_text("")
    with pytest.raises(OutputError, match=r"cache: it is not a folder; name another with --cache, or --cache off$"):
        opened(path)
