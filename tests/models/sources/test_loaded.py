from pathlib import Path

from torch import nn

from mpq.models.sources.loaded import LoadedModel


def test_it_says_in_one_line_what_it_is_and_where_from() -> None:
    digest = "0123456789ab" + 52 * "0"
    assert repr(LoadedModel(nn.Linear(1, 1), "memory", digest)) == "<LoadedModel: Linear, in memory, sha256 0123456789ab…>"
    loaded = LoadedModel(nn.Linear(1, 1), "hf", digest, path=Path("tiny"))
    assert repr(loaded) == "<LoadedModel: Linear, hf, tiny, sha256 0123456789ab…>"
