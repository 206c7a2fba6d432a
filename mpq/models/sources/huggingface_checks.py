"""What a Hugging Face directory may not contain without --trust: its own code, pickles that call functions, false sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mpq.data.tensors_only import HoldsCodeError, check_tensors_only, reason_of
from mpq.errors import ModelError
from mpq.files import open_file
from mpq.models.memory.replaced_tensors import hollow_parameters
from mpq.shown import shown_bare

_TIED, _SLACK = 2, 1 << 16  # parameters that a checkpoint may lack: tied ones, and some small ones


def check_harmless(config: Mapping[str, Any], source: str) -> None:
    """Refuse a configuration that would make transformers import, download or compile code.

    Raises:
        ModelError: naming the key.
    """
    for key, value in _entries(config):
        if key == "auto_map":
            raise ModelError(f"{source} contains its own Python code (auto_map): if you trust it, add --trust")
        texts = [value] if isinstance(value, str) else list(value.values()) if isinstance(value, dict) else []
        if key.endswith("_implementation") and not all(isinstance(text, str) and text.isidentifier() for text in texts):
            raise ModelError(f"{source} names code to download ({shown_bare(key)}: {shown_bare(value)}): if you trust it, add --trust")


def allowed_parameters(most: int | None) -> int | None:
    """The number of parameters that a configuration may make if there are values for `most`; None for any number."""
    return None if most is None else _SLACK + _TIED * most


def check_size(model_classes: Sequence[Any], config: Mapping[str, Any], directory: Path, *, most: int) -> None:
    """Refuse a configuration that makes far more parameters than the files have bytes, before memory is allocated.

    If transformers cannot build the module, `from_pretrained` reports why later.

    Raises:
        ModelError: naming the directory.
    """
    for model_class in model_classes:
        try:
            with torch.random.fork_rng(devices=[]), torch.device("meta"), hollow_parameters(most=allowed_parameters(most)):
                _make(model_class, config)
        except ModelError as error:
            raise ModelError(f"{directory}: {error}: its files hold {most:,} bytes; download the model again") from error
        except Exception:  # on any error, the next class is tried, like `from_pretrained` will
            continue
        return


def _make(model_class: Any, config: Mapping[str, Any]) -> None:
    """A module of a transformers class, or of the class that one of its `Auto` classes finds."""
    if hasattr(model_class, "config_class"):
        model_class._from_config(model_class.config_class.from_dict(dict(config)))
        return
    from transformers import AutoConfig

    fields = {key: value for key, value in config.items() if key != "model_type"}
    model_class.from_config(AutoConfig.for_model(config["model_type"], **fields))


def check_pickle(path: Path) -> None:
    """Refuse a pickle that imports more than tensors need; transformers would refuse it too, but with different advice."""
    if path.suffix == ".safetensors":
        return
    try:
        with open_file(path) as file:
            check_tensors_only(file)
    except HoldsCodeError as error:
        raise ModelError(
            f"{path} holds pickled Python objects ({error}), which run code when loaded: download the weights as safetensors"
        ) from error
    except Exception as error:  # any failure in the reader is caused by the file
        raise ModelError(f"{path} cannot be read as a file of torch.save ({reason_of(error)}): download the model again") from error


def _entries(node: Any) -> Iterator[tuple[str, Any]]:
    """All keys of nested JSON, with their values."""
    waiting = [node]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            yield from ((str(key), value) for key, value in part.items())
        if isinstance(part, (Mapping, list)):
            waiting += part.values() if isinstance(part, Mapping) else part
