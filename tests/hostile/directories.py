"""Malicious Hugging Face directories."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.making import Builder, Records, Touch, safetensors, saved, write


def directory(
    *, name: str = "config.json", change: Callable[[dict[str, Any]], Any] = dict, files: Callable[[Path], Records] | None = None
) -> Builder:
    """A Hugging Face directory of a small BERT-like configuration, with one JSON changed and files added."""

    def build(folder: Path, marker: Path) -> Path:
        place = folder / "hf"
        place.mkdir()
        config = {"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 8, "hidden_size": 4, "num_hidden_layers": 1}
        config |= {"num_attention_heads": 1, "intermediate_size": 8}
        (place / "config.json").write_text(json.dumps(config))
        write(place / "model.safetensors", safetensors({"embeddings.word_embeddings.weight": ("F32", [8, 4], bytes(128))}))
        before = config if name == "config.json" else {}
        changed = change(before)
        (place / name).write_text(changed if isinstance(changed, str) else json.dumps(changed))
        for extra, content in (files(marker) if files else {}).items():
            write(place / extra, content)
        return place

    return build


def _module_source(marker: Path) -> Records:
    return {"evil.py": f"open({str(marker)!r}, 'w').close()\n".encode()}


def pickled_weights(folder: Path, marker: Path) -> Path:
    """A directory whose weights are a pickle that creates the marker."""
    place = directory()(folder, marker)
    (place / "model.safetensors").unlink()
    write(place / "pytorch_model.bin", saved({"w": Touch(marker)}))
    return place


DIRECTORIES: dict[str, Builder] = {
    "pickled weights": pickled_weights,
    "auto_map": directory(change=lambda config: {**config, "auto_map": {"AutoModel": "evil.Model"}}, files=_module_source),
    "a nested auto_map": directory(
        change=lambda config: {**config, "text_config": {"auto_map": {"AutoConfig": "evil.Config"}}}, files=_module_source
    ),
    "a kernel to download": directory(change=lambda config: {**config, "_attn_implementation": "someone/kernel"}),
    "a kernel to download, by part": directory(change=lambda config: {**config, "attn_implementation": {"text": "someone/kernel:f"}}),
    "an architecture that is no model": directory(change=lambda config: {**config, "architectures": ["pipeline"], "model_type": "x"}),
    "an index that leads elsewhere": directory(
        name="model.safetensors.index.json", change=lambda _: {"weight_map": {"a": "../../../../dev/zero"}}
    ),
    "a nested configuration": directory(change=lambda _: "[" * 100_000),
    "architectures of another type": directory(change=lambda config: {**config, "architectures": {"a": 1}}),
    "a model type of another type": directory(change=lambda config: {**config, "model_type": ["bert"]}),
}
"""Hugging Face directories, without --trust."""
