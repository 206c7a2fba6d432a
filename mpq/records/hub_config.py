"""What the config.json of an exported Hugging Face folder says of its quantization, and how its weights are called. No torch."""

from __future__ import annotations

METHOD = "mpq"
VERSION = 1
WEIGHTS = "model.mpq.safetensors"
INDEX = f"{WEIGHTS}.index.json"
