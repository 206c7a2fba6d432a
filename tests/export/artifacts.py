"""Small artifacts with chosen schemes, and how far apart two outputs are."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mpq.apply.plan_layers import plan_layers
from mpq.apply.run import apply
from mpq.data.dataset import Batch
from mpq.export.base import Options
from mpq.export.run import export
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.models.layers.discover import discover
from mpq.models.layers.unquantized_tensors import inventory, source_of
from mpq.models.sources.load import load_model
from mpq.records.layer import Layer
from mpq.records.plan import plan_for, write_plan
from tests.shared import shared

NAMES = {"onnx": "m.onnx", "openvino": "m.xml", "pt2": "m.pt2", "gguf": "m.gguf", "compressed-tensors": "folder"}

LLAMA = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 64,
}


def save_llama(folder: Path, **changes: Any) -> Path:
    """A small random Llama, larger weights than usual so that its logits differ."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**LLAMA, "initializer_range": 0.2, **changes}))
    model.save_pretrained(folder)
    return folder


def tokens(samples: int = 2, length: int = 12) -> Tensor:
    return torch.randint(0, LLAMA["vocab_size"], (samples, length), generator=torch.Generator().manual_seed(1))


def by_name(schemes: Mapping[str, str], otherwise: str) -> Callable[[Layer], Scheme]:
    """The scheme of the first key that stands in a layer's name."""
    return lambda layer: parse_scheme(next((text for part, text in schemes.items() if part in layer.name), otherwise))


def make(
    model: Path,
    batch: Batch,
    choose: Callable[[Layer], Scheme],
    folder: Path,
    *,
    factory: str | None = None,
    without: Sequence[str] = (),
    quantizer: str = "rtn",
) -> tuple[Path, Path]:
    """A plan and its artifact in `folder`."""
    loaded = load_model(model, factory=factory)
    layers = [layer for layer in discover(loaded.module, [batch]).layers if layer.name not in without]
    source = source_of(loaded, str(model))
    bare = {layer.name: choose(layer) for layer in layers}
    plan = plan_for(layers, bare, model=source, quantizer=quantizer, rest=inventory(loaded, layers, source=source, quantizer=quantizer))
    assert [layer.name for layer in plan_layers(plan, loaded)] == [layer.name for layer in layers]
    write_plan(plan, folder / "plan.yaml")
    apply(loaded, plan, folder / "model.mpq.safetensors", allow_unchanged=True)
    return folder / "plan.yaml", folder / "model.mpq.safetensors"


def llama_artifact(factory: pytest.TempPathFactory) -> Path:
    """The artifact of a small language model with a tied head, made once per run."""

    def made(folder: Path) -> None:
        model = save_llama(folder / "llama", tie_word_embeddings=True, num_hidden_layers=1)
        make(model, Batch((tokens(),)), by_name({"embed": "int8-g32", "v_proj": "int8-g32"}, "int4-g32"), folder)

    return shared(factory, "llama", made) / "model.mpq.safetensors"


def llama_export(factory: pytest.TempPathFactory, target: str) -> Path:
    """What `llama_artifact` is exported to, alone in its folder, made once per run."""
    artifact, name, options = llama_artifact(factory), NAMES[target], Options(compare=False, fused=False)
    return shared(factory, f"llama-{target}", lambda folder: export(artifact, target, folder / name, options=options)) / name


def kl_divergence(reference: Tensor, found: Tensor) -> float:
    """Mean over positions, in nats."""
    first, second = reference.double().log_softmax(-1), found.double().log_softmax(-1)
    return float((first.exp() * (first - second)).sum(-1).mean())
