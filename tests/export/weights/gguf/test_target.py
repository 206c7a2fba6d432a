import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mpq
from mpq.data.dataset import Batch
from mpq.export.abilities import ExportError
from mpq.export.gguf_blocks import block_type, pack_blocks
from mpq.export.llama_names import gguf_name
from mpq.export.run import export
from mpq.formats.scheme import parse_scheme
from mpq.tensors.quantizers.registry import quantizer_named
from tests.export.artifacts import by_name, kl_divergence, make, save_llama, tokens

gguf: Any = pytest.importorskip("gguf")
transformers: Any = pytest.importorskip("transformers")
SCHEMES = {"q_proj": "int8-g32", "k_proj": "int5-g32", "v_proj": "fp16", "gate_proj": "int5-asym-g32", "up_proj": "bf16", "lm_head": "fp32"}


def artifact(folder: Path, schemes: dict[str, str] | None = None, otherwise: str = "int4-g32", **changes: Any) -> Path:
    model = save_llama(folder / "llama", **changes)
    return make(model, Batch((), {"input_ids": tokens()}), by_name(schemes or {}, otherwise), folder)[1]


@pytest.mark.parametrize("scheme", ["int4-g32", "int5-g32", "int8-g32", "int4-asym-g32", "int5-asym-g32"])
def test_blocks_are_what_the_package_reads(scheme: str) -> None:
    matrix = torch.randn(3, 96, generator=torch.Generator().manual_seed(0))
    weight = quantizer_named("mse").quantize(matrix, parse_scheme(scheme))
    assert weight.scales is not None
    found = gguf.dequantize(pack_blocks(weight), gguf.GGMLQuantizationType[block_type(weight.scheme)])
    expected = weight.dequantize().numpy()
    if weight.scheme.symmetric:
        assert bool((weight.scales < 0).any())
        assert np.array_equal(found, expected)
    else:  # the minimum is rounded to fp16
        assert np.abs(found - expected).max() <= 2**-11 * 31 * float(weight.scales.abs().max())


@pytest.mark.parametrize("tied", [True, False])
def test_another_reader_computes_the_logits_of_the_artifact(tmp_path: Path, tied: bool) -> None:
    path = artifact(tmp_path, SCHEMES, tie_word_embeddings=tied)
    done = export(path, "gguf")
    with torch.no_grad():
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=done.path.name, dtype=torch.float32)
        found, reference = model(input_ids=tokens()).logits, mpq.load(path)(input_ids=tokens()).logits
    assert abs(kl_divergence(reference, found)) < 1e-5


@pytest.mark.parametrize(("scheme", "least"), [("fp32", 1e-5), ("int8-g32", 1e-2), ("int4-g32", 1e-2)])
def test_llama_cpp_runs_it(tmp_path: Path, scheme: str, least: float) -> None:
    """Its products round activations to 8 bits wherever weights are in blocks; in float32 it must agree closely."""
    llama_cpp: Any = pytest.importorskip("llama_cpp")
    path = artifact(tmp_path, otherwise=scheme)
    inputs = tokens(1)
    model = llama_cpp.Llama(str(export(path, "gguf").path), n_ctx=32, logits_all=True, verbose=False, n_threads=1)
    model.eval(inputs[0].tolist())
    with torch.no_grad():
        reference = mpq.load(path)(input_ids=inputs).logits
    assert abs(kl_divergence(reference[0], torch.from_numpy(model.scores[: inputs.shape[1]].copy()))) < least
    model.close()


def test_sizes_are_stated_by_type(tmp_path: Path) -> None:
    done = export(artifact(tmp_path, {"v_proj": "int8-g32"}), "gguf")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(done.path).tensors}
    assert kinds["blk.1.attn_v.weight"] == "Q8_0"
    assert kinds["blk.1.attn_norm.weight"] == "F32"
    assert done.notes[0] == "F32: 5 tensors, 1,280 bytes; Q4_0: 14 tensors, 39,456 bytes; Q8_0: 2 tensors, 4,352 bytes"
    assert done.notes[1].startswith("the file has no vocabulary (no tokenizer.json next to the original model)")


def test_schemes_without_a_block_type_need_nearest(tmp_path: Path) -> None:
    path = artifact(tmp_path, {"v_proj": "int3"})
    with pytest.raises(ExportError) as caught:
        export(path, "gguf")
    named = ", ".join(f"model.layers.{number}.self_attn.v_proj (int3)" for number in (0, 1))
    assert str(caught.value) == f"gguf cannot represent {named}: --nearest uses the next larger scheme for each"
    assert {str(new) for _, new in export(path, "gguf", nearest=True).replaced.values()} == {"int4-g32"}


def test_other_model_types_and_rope_scalings_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "scaled"
    folder.mkdir()
    path = artifact(folder, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0})
    with pytest.raises(ExportError, match="rope scaling of type 'linear' cannot be written to GGUF by mpq"):
        export(path, "gguf")
    config = transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=100)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    _, other = make(tmp_path / "gpt2", Batch((), {"input_ids": tokens()}), by_name({}, "int8-g32"), tmp_path)
    with pytest.raises(ExportError) as caught:
        export(other, "gguf")
    assert str(caught.value) == "this target only supports Hugging Face models of the types llama, mistral, not gpt2: use onnx"


def test_a_byte_fallback_vocabulary_is_written(tmp_path: Path) -> None:
    path = artifact(tmp_path)
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "<0x41>": 3, "a": 4, "b": 5, "ab": 6}
    added = [{"id": number, "content": text, "special": True} for text, number in list(vocabulary.items())[:3]]
    model = {"type": "BPE", "byte_fallback": True, "unk_token": "<unk>", "vocab": vocabulary, "merges": [["a", "b"]]}
    (tmp_path / "llama" / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": added}))
    fields = gguf.GGUFReader(export(path, "gguf").path).fields
    assert fields["tokenizer.ggml.model"].contents() == "llama"
    assert fields["tokenizer.ggml.token_type"].contents()[:8] == [2, 3, 3, 6, 1, 1, 1, 5]
    assert fields["tokenizer.ggml.scores"].contents()[4:7] == [-4.0, -5.0, -6.0]
    assert fields["tokenizer.ggml.bos_token_id"].contents() == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.12.self_attn.o_proj", "blk.12.attn_output.weight"),
        ("model.layers.0.self_attn.q_proj.bias", "blk.0.attn_q.bias"),
        ("model.norm.weight", "output_norm.weight"),
        ("model.layers.0.mlp.experts.0.w1", None),
        ("transformer.wte", None),
    ],
)
def test_names(name: str, expected: str | None) -> None:
    assert gguf_name(name) == expected
