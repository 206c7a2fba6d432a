"""Uploads a folder that `mpq export --to huggingface` wrote to a Hugging Face hub. huggingface_hub handles tokens; none is read here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpq.errors import OutputError, UsageError
from mpq.models.sources.hub import huggingface_hub
from mpq.reading.documents import read_json
from mpq.records.artifact_files import artifact_files, read_header
from mpq.records.hub_config import INDEX, METHOD
from mpq.records.hub_name import HubName, is_repo
from mpq.shown import first_line

_KEPT = re.compile(r"[^.][^/]*\.(json|txt|model|jinja)|README\.md|plan\.yaml|report\.html")


@dataclass(frozen=True)
class Upload:
    """The files of an upload.

    Args:
        folder: an exported folder.
        files: names of the files to upload.
        left_out: names of the other files in the folder.
    """

    folder: Path
    files: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Bytes of the files."""
        return sum((self.folder / name).stat().st_size for name in self.files)


@dataclass(frozen=True)
class Uploaded:
    """The result of an upload: the page of the commit, and the name of the model at this commit."""

    url: str
    name: HubName


def upload_of(folder: Path) -> Upload:
    """The files of an exported folder that belong to it, so that nothing else is uploaded by accident.

    Raises:
        UsageError: if `mpq export --to huggingface` did not write the folder.
        FormatError: if its artifact is damaged.
    """
    config = read_json(
        folder / "config.json", error=UsageError, absent="name a folder that `mpq export --to huggingface` wrote", remedy="export it again"
    ).value
    quantization = config.get("quantization_config") if isinstance(config, dict) else None
    if not isinstance(quantization, dict) or quantization.get("quant_method") != METHOD:
        raise UsageError(f"{folder} holds no artifact: name a folder that `mpq export --to huggingface` wrote")
    read_header(folder)
    weights = {file.name for file in artifact_files(folder)} | ({INDEX} if (folder / INDEX).exists() else set())
    found = sorted(path.name for path in folder.iterdir())
    files = [name for name in found if (folder / name).is_file() and (name in weights or _KEPT.fullmatch(name))]
    return Upload(folder, tuple(files), tuple(name for name in found if name not in files))


def upload(
    chosen: Upload, repo: str, *, private: bool = False, revision: str | None = None, message: str | None = None, api: Any = None
) -> Uploaded:
    """Create the repository and the branch if needed, and upload the files in one commit.

    Args:
        chosen: the files.
        repo: `org/name`.
        private: make the repository private; an existing public one is refused.
        revision: the branch; None for the main one.
        message: message of the commit.
        api: a huggingface_hub.HfApi; None for one with the user's endpoint and token.

    Raises:
        UsageError: if `repo` is not `org/name`.
        OutputError: if the hub refuses.
    """
    if not is_repo(repo):
        raise UsageError(f"{repo} is not a model of the hub: write ORG/NAME")
    hub = huggingface_hub("an upload")
    client = hub.HfApi() if api is None else api
    try:
        client.create_repo(repo, private=private, exist_ok=True)
        if private and not client.model_info(repo).private:
            raise OutputError(f"{repo} already exists and is public: leave out --private, or choose another name")
        if revision is not None:
            client.create_branch(repo, branch=revision, exist_ok=True)
        operations = [hub.CommitOperationAdd(name, chosen.folder / name) for name in chosen.files]
        done = client.create_commit(repo, operations, commit_message=message or "Upload with mpq", revision=revision)
    except (hub.errors.HfHubHTTPError, OSError, RuntimeError, ValueError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        reason = f"the hub answers {status}" if status is not None else first_line(error)
        remedy = "run `hf auth login` with a token that may write there" if status in (401, 403) else "check the network and the name"
        raise OutputError(f"{repo} cannot be uploaded ({reason}): {remedy}, then run the command again") from error
    return Uploaded(str(done.commit_url), HubName(repo, done.oid))
