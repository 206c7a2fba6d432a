import pytest
import torch
from torch import nn

import mpq
from mpq.models.running.kept_weights import renorm_notes, rewritten_weights, weights_kept

IDS = torch.randint(0, 20, (32, 5), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_rows_that_calls_shorten_are_put_back(kind: type[nn.Embedding] | type[nn.EmbeddingBag]) -> None:
    torch.manual_seed(0)
    table = kind(20, 6, max_norm=0.5)
    module, before = nn.Sequential(table), table.weight.detach().clone()
    with weights_kept(module):
        module(IDS)
        assert not torch.equal(table.weight, before)
    assert torch.equal(table.weight, before)
    assert list(rewritten_weights(module)) == ["0.weight"]
    assert renorm_notes(module) == ["calls renormalize rows of 0.weight (max_norm); they are restored after every call"]


def test_other_tables_are_let_alone() -> None:
    module = nn.Sequential(nn.Embedding(20, 6))
    assert rewritten_weights(module) == {}
    assert renorm_notes(module) == []


def test_an_analysis_leaves_the_model_as_it_was_and_its_plan_applies() -> None:
    torch.manual_seed(0)
    words = nn.Embedding(20, 6, max_norm=1.0)
    module, before = nn.Sequential(words, nn.Flatten(), nn.Linear(30, 4)).eval(), words.weight.detach().clone()
    table = mpq.analyze(module, IDS, candidates=("4",), quantizer="rtn", method="measure", metric="relative_mse")
    assert torch.equal(words.weight, before)
    assert "max_norm" in table.header.data["description"]
    assert mpq.search(table, "100%", trials=0).plan.model["sha256"] == table.header.model["sha256"]
