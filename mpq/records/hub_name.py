"""The name of a model on a Hugging Face hub: `hf://org/name`, with `@revision` for a branch, a tag or a commit. No torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from mpq.errors import UsageError

_SCHEME = re.compile(r"hf:/{1,2}(?!/)")  # a Path has one slash
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_NAME = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]*))?")


@dataclass(frozen=True)
class HubName:
    """A model on the hub.

    Args:
        repo: `org/name`.
        revision: a branch, a tag or a commit; None for the main branch.
    """

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        """As it is written in commands and files."""
        return f"hf://{self.repo}" + (f"@{self.revision}" if self.revision else "")

    def at(self, revision: str) -> HubName:
        """The same model at another revision."""
        return replace(self, revision=revision)


def is_repo(text: str) -> bool:
    """Whether a text is `org/name`."""
    found = _NAME.fullmatch(text)
    return found is not None and found["revision"] is None


def hub_name(path: Path | str | None) -> HubName | None:
    """The model that a path names; None if it is a path of this machine.

    Raises:
        UsageError: if it begins with hf:// and what follows is no name of a model.
    """
    text = "" if path is None else str(path)
    start = _SCHEME.match(text)
    if start is None:
        return None
    found = _NAME.fullmatch(text[start.end() :])
    if found is None:
        raise UsageError(f"hf://{text[start.end() :]} is not a model of the hub: write hf://ORG/NAME or hf://ORG/NAME@REVISION")
    return HubName(found["repo"], found["revision"])
