"""What the config.json of an exported Hugging Face folder says of its quantization, and how its weights are called. No torch."""

from __future__ import annotations

from pathlib import Path

from mpq.files import check_version

METHOD = "mpq"
VERSION = 1
WEIGHTS = "model.mpq.safetensors"
INDEX = f"{WEIGHTS}.index.json"


def check_config_version(version: object) -> None:
    """Refuse the quantization_config of a newer mpq.

    Raises:
        FormatError: naming both versions.
    """
    check_version(version, supported=VERSION, path=Path("config.json"), kind="the quantization_config")
