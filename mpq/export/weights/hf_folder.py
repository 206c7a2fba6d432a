"""Common parts of folders for Transformers: the configuration, and the files next to the weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

CONFIG = "config.json"
_OWN_KEYS = ("architecture", "tensor_dtypes")
_BESIDE = (
    "generation_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "added_tokens.json",
    "merges.txt",
    "vocab.json",
    "vocab.txt",
    "preprocessor_config.json",
    "processor_config.json",
)


def config_with(config: Mapping[str, Any], quantization: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of a model, from the copy in the artifact, with the quantization added."""
    found = {key: value for key, value in config.items() if key not in _OWN_KEYS}
    return found | {"architectures": [config["architecture"]], "quantization_config": dict(quantization)}


def copy_tokenizer(folder: Path | None, output: Path) -> list[str]:
    """Copy the tokenizer, the preprocessor and the generation settings; a note if the original folder is missing."""
    if folder is None or not folder.is_dir():
        return ["the original folder was not found, so no tokenizer was copied: name it with --reference MODEL"]
    for file in _tokenizer_files(folder):
        shutil.copyfile(file, output / file.name)
    return []


def _tokenizer_files(folder: Path) -> Iterator[Path]:
    for pattern in ("tokenizer*", "*.model", *_BESIDE):
        yield from (file for file in sorted(folder.glob(pattern)) if file.is_file())
