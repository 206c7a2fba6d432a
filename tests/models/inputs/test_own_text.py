from typing import cast

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from mpq.config import OWN_TEXT_TOKENS as TOKENS
from mpq.data.batch import Batch
from mpq.data.dataset import Data, data_from_batches, make_data
from mpq.models.inputs.own_text import missing_windows, token_windows, with_own_text
from mpq.models.memory.devices import move
from tests.fake_device import fake_device


def writer() -> nn.Module:
    """After token n comes (3n + 1) mod 11."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=11, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, tie_word_embeddings=False
    )
    module = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "proj" in name:
                parameter.zero_()
        module.model.embed_tokens.weight.copy_(torch.eye(11, 16))
        head = torch.zeros(11, 16)
        head[[(3 * n + 1) % 11 for n in range(11)], range(11)] = 1000.0
        module.lm_head.weight.copy_(head)
    return cast("nn.Module", module)


def windows(count: int, length: int = 6) -> Data:
    return data_from_batches(list(torch.split(torch.arange(count * length).view(count, length) % 11, 2)))


def test_the_model_continues_first_tokens_of_the_given_windows() -> None:
    found = with_own_text(writer(), windows(5), 70, seed=0)
    assert found is not None
    assert [batch.size for batch in found.batches[:3]] == [2, 2, 1]
    ids = token_windows(found)
    assert ids is not None
    assert ids.dtype == torch.int64
    assert torch.equal(ids[:5], torch.arange(30).view(5, 6) % 11)
    own = ids[5:]
    assert own.shape == (70, 6)
    assert set(own[:, 0].tolist()) == {0, 6, 1, 7, 2}
    assert torch.equal(own[:, 1:], (3 * own[:, :-1] + 1) % 11)


def test_the_same_seed_writes_the_same_text() -> None:
    first, again, other = (with_own_text(writer(), windows(5), 8, seed=seed) for seed in (1, 1, 2))
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.sha256 == again.sha256 != other.sha256


def test_keywords_are_kept() -> None:
    tokens = torch.arange(12).view(2, 6) % 11
    given = make_data([Batch((), {"input_ids": tokens, "attention_mask": torch.ones(2, 6, dtype=torch.bool)})], source="text")
    found = with_own_text(writer(), given, 3, seed=0)
    assert found is not None
    assert [sorted(batch.kwargs) for batch in found.batches] == [["attention_mask", "input_ids"]] * 3
    assert found.batches[-1].kwargs["attention_mask"].dtype == torch.bool


def test_other_samples_and_other_models_get_no_text() -> None:
    padded = Batch((), {"input_ids": torch.ones(2, 6, dtype=torch.int64), "attention_mask": torch.tensor([[1] * 6, [0] + [1] * 5])})
    typed = Batch((), {"input_ids": torch.ones(2, 6, dtype=torch.int64), "token_type_ids": torch.ones(2, 6, dtype=torch.int64)})
    ragged = data_from_batches([torch.ones(2, 6, dtype=torch.int64), torch.ones(2, 5, dtype=torch.int64)])
    for samples in (make_data([padded], source=""), make_data([typed], source=""), ragged, data_from_batches([torch.ones(4, 6)])):
        assert token_windows(samples) is None
        assert missing_windows(samples) == 0
        assert with_own_text(writer(), samples, 4, seed=0) is None
    assert with_own_text(nn.Embedding(11, 3), windows(4), 4, seed=0) is None
    assert with_own_text(writer(), windows(4), 0, seed=0) is None


def test_short_text_is_filled_up() -> None:
    assert missing_windows(data_from_batches([torch.zeros(100, 64, dtype=torch.int64)])) == TOKENS // 64 - 100
    assert missing_windows(windows(4, 8)) == 8 * 4
    assert missing_windows(data_from_batches([torch.zeros(1, TOKENS, dtype=torch.int64)])) == 0


def test_a_model_on_a_device_writes_there() -> None:
    expected = with_own_text(writer(), windows(5), 8, seed=1)
    with fake_device() as device:
        module = writer()
        move(module, device)
        found = with_own_text(module, windows(5), 8, seed=1)
    assert expected is not None
    assert found is not None
    assert found.sha256 == expected.sha256
