"""Models on a Hugging Face hub: files that are safe to load are downloaded to huggingface_hub's cache, at one commit.

Only files in the root of a repository are downloaded: the configuration, the tokenizer, the card, and weights as safetensors. Pickles and
Python files are downloaded only with `trust`, if the model needs them.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpq.distribution import install
from mpq.errors import ModelError
from mpq.records.hub_name import HubName
from mpq.shown import first_line

_CONFIG = "config.json"
_SAFE = re.compile(r"[^/]+\.(json|txt|model|jinja)|README\.md")
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json")
_PICKLES = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin|pytorch_model\.bin\.index\.json")
_CODE = re.compile(r"[^/]+\.py")


@dataclass(frozen=True)
class Fetched:
    """A downloaded model.

    Args:
        folder: the folder with its files.
        name: the model's name with its commit, which always means the same files.
    """

    folder: Path
    name: HubName


def fetch(name: HubName, *, trust: bool = False, api: Any = None) -> Fetched:
    """The files of a model at one commit, downloaded unless the cache has them; without a network, those in the cache.

    Args:
        name: the model.
        trust: also download Python files, and pickles if there are no safetensors.
        api: a huggingface_hub.HfApi; None for one with the user's endpoint and token.

    Raises:
        ModelError: if huggingface_hub is missing, the hub does not provide the model, or its weights are pickles and `trust` is not set.
    """
    hub = huggingface_hub("a model of the hub")
    client = hub.HfApi() if api is None else api
    try:
        config = _from_cache(client, name) if hub.is_offline_mode() else _downloaded(client, name, trust=trust)
    except (hub.errors.HfHubHTTPError, hub.errors.LocalEntryNotFoundError, OSError, ValueError) as error:
        raise ModelError(f"{name} cannot be downloaded ({_reason(error)}): {_remedy(error, hub)}") from error
    folder = Path(config).parent  # not resolved, because its links lead into the cache
    return Fetched(folder, name.at(folder.name))


def _downloaded(client: Any, name: HubName, *, trust: bool) -> str:
    """Download all wanted files of a commit; the path of its configuration."""
    info = client.model_info(name.repo, revision=name.revision)
    wanted = wanted_files([each.rfilename for each in info.siblings or ()], str(name), trust=trust)
    found = {file: client.hf_hub_download(name.repo, file, revision=info.sha) for file in wanted}
    if name.revision != info.sha:  # so that the cache knows the commit of the branch without a network
        client.hf_hub_download(name.repo, _CONFIG, revision=name.revision)
    return str(found[_CONFIG])


def _from_cache(client: Any, name: HubName) -> str:
    return str(client.hf_hub_download(name.repo, _CONFIG, revision=name.revision, local_files_only=True))


def wanted_files(names: Iterable[str], model: str, *, trust: bool) -> list[str]:
    """The files of a repository to download.

    Raises:
        ModelError: if it has no weights that may be loaded.
    """
    found = sorted(names)
    safe = [name for name in found if _SAFE.fullmatch(name) and not _PICKLES.fullmatch(name)]
    weights = [name for name in found if _WEIGHTS.fullmatch(name)]
    pickles = [name for name in found if _PICKLES.fullmatch(name)]
    if _CONFIG not in found:
        raise ModelError(f"{model} has no {_CONFIG}, so it is not a model for Transformers: choose another model or revision")
    if not weights and pickles and not trust:
        raise ModelError(f"{model} has pickles only ({pickles[0]}), which can run code when loaded: if you trust it, add --trust")
    if any(name.endswith(".mpq.safetensors") for name in found):
        raise ModelError(f"{model} is quantized by mpq already: give the original model")
    if not weights and not pickles:
        raise ModelError(f"{model} has no weights that mpq loads (model.safetensors): choose another model or revision")
    return [*dict.fromkeys([*safe, *(weights or pickles), *([name for name in found if _CODE.fullmatch(name)] if trust else [])])]


def huggingface_hub(what: str) -> Any:
    """The module `huggingface_hub`.

    Raises:
        ModelError: naming the extra of mpq to install.
    """
    try:
        importlib.import_module("huggingface_hub.errors")
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ModelError(f"{what} needs huggingface_hub: {install('hf')}") from error


def _reason(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"the hub answers {status}" if status is not None else first_line(error)


def _remedy(error: Exception, hub: Any) -> str:
    known: Sequence[tuple[type[Exception], str]] = (
        (hub.errors.GatedRepoError, "ask for access on its page, then run `hf auth login`"),
        (hub.errors.RevisionNotFoundError, "check the revision after the @"),
        (hub.errors.RepositoryNotFoundError, "check the name; for a private model, run `hf auth login` first"),
        (hub.errors.LocalEntryNotFoundError, "it is not in the cache; allow network access once (unset HF_HUB_OFFLINE)"),
    )
    return next((remedy for kind, remedy in known if isinstance(error, kind)), "check the network, then run the command again")
