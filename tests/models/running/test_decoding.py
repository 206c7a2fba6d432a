import torch
from torch import nn

from mpq.models.running.decoding import decodes
from tests.models.inputs.test_own_text import writer


class NeedsMore(nn.Module):
    def forward(self, input_ids: torch.Tensor, past_key_values: object = None, use_cache: bool = False) -> torch.Tensor:
        raise ValueError("give pixels, too")


def test_a_language_model_decodes_and_others_do_not() -> None:
    prompt = torch.tensor([[1, 2]])
    assert decodes(writer(), prompt)
    assert not decodes(nn.Embedding(11, 3), prompt)
    assert not decodes(NeedsMore(), prompt)
