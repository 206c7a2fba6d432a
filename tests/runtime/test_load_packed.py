"""A packed Hugging Face model: the class of the original, its ties, its cache."""

from pathlib import Path
from typing import Any

import pytest
import torch

import mpq
from mpq.data.dataset import Batch
from mpq.errors import UsageError
from mpq.tensors.packed import PackedTensor
from tests.export.artifacts import by_name, make, save_llama, tokens

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = tmp_path_factory.mktemp("llama")
    save_llama(folder / "model", tie_word_embeddings=request.param)
    batch = Batch((), {"input_ids": tokens()})
    _, path = make(folder / "model", batch, by_name({"v_proj": "int8", "down": "int3-g8", "q_proj": "fp16"}, "int4-g8"), folder)
    return mpq.load(path), mpq.load(path, packed=True)


def test_it_computes_what_the_dequantized_model_does(models: tuple[Any, Any]) -> None:
    dense, packed = models
    assert type(packed) is type(dense)
    with torch.no_grad():
        for inputs in (tokens(), tokens(1, 1)):
            expected, found = dense(input_ids=inputs).logits, packed(input_ids=inputs).logits
            assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_ties_and_buffers_are_those_of_the_model(models: tuple[Any, Any]) -> None:
    dense, packed = models
    tied = dense.lm_head.weight is dense.model.embed_tokens.weight
    assert (packed.lm_head.weight is packed.model.embed_tokens.weight) == tied
    assert isinstance(packed.model.embed_tokens.weight, PackedTensor)
    for name, buffer in dense.named_buffers():
        assert torch.equal(packed.get_buffer(name), buffer)


def in_dtype(path: Path, **how: Any) -> Any:
    return mpq.load(path, **how)


@pytest.mark.parametrize("packed", [True, False])
def test_another_dtype_for_the_whole_model(tmp_path: Path, packed: bool) -> None:
    save_llama(tmp_path / "model")
    _, path = make(
        tmp_path / "model", Batch((), {"input_ids": tokens()}), by_name({"v_proj": "int8", "q_proj": "fp16"}, "int4-g8"), tmp_path
    )
    reference, model = in_dtype(path), in_dtype(path, packed=packed, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32  # a buffer that no checkpoint holds stays as the model makes it
    assert isinstance(model.model.layers[0].self_attn.v_proj.weight, PackedTensor) == packed
    assert type(model.model.layers[0].self_attn.q_proj.weight.data) is torch.Tensor
    with torch.no_grad():
        expected, found = reference(input_ids=tokens()).logits, model(input_ids=tokens()).logits
    assert found.dtype == torch.bfloat16
    assert (found - expected).abs().max() <= 0.05 * expected.abs().max()


def test_a_dtype_of_whole_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a model cannot compute in torch.int8: give a floating-point dtype, for example torch.bfloat16"):
        mpq.load(tmp_path, dtype=torch.int8)


def test_greedy_decoding_with_a_cache_gives_the_same_tokens(models: tuple[Any, Any]) -> None:
    first, second = (model.generate(tokens(1, 4), max_new_tokens=8, do_sample=False, pad_token_id=0) for model in models)
    assert torch.equal(first, second)
