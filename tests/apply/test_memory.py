from pathlib import Path
from typing import Any

import pytest
import torch

from mpq.apply.memory import expected_memory
from mpq.data.dataset import data_from_batches
from mpq.models.layers.discover import discover
from mpq.models.sources.load import from_module, load_model
from tests.models.small import data, mlp

transformers: Any = pytest.importorskip("transformers")
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "vocab_size": 60}


def test_a_model_in_memory_has_no_limit_to_keep() -> None:
    model = from_module(mlp())
    assert expected_memory(model, discover(model.module, data().batches).layers, data(), recovery=True) == 0


def test_what_is_expected_grows_with_the_limit_and_with_recovery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(expected_memory.__globals__, "held_now", lambda: 1000)
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, num_hidden_layers=4)).save_pretrained(tmp_path / "llama")
    tokens, found = data_from_batches([torch.arange(24).reshape(2, 12)]), list[int]()
    for limit, recovery in ((50_000, False), (100_000, False), (100_000, True)):
        model = load_model(tmp_path / "llama", offload=tmp_path / "off", max_memory=limit)
        layers = discover(model.module, tokens.batches).layers
        found.append(expected_memory(model, layers, tokens, recovery=recovery))
    block = 4 * 64 * 64 + 3 * 64 * 128
    assert 1000 < found[0] <= found[1] <= found[0] + 50_000
    assert found[2] > found[1] + 32 * block
