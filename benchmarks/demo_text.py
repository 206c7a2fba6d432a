"""The text of the character model: the topics of Python's own `help()` (`pydoc_data.topics`; PSF licence)."""

from __future__ import annotations

import re
from pydoc_data.topics import topics

import torch
from torch import Tensor

_RULE = re.compile(r"[-=+~*]{4,}")
_BLANKS = re.compile(r" +")


def documentation() -> str:
    """All topics in the order of their names, without indentation and rules.

    A paragraph that was seen before is left out, so that what is held out at the end is new.
    """
    paragraphs: dict[str, None] = {}
    for name in sorted(topics):
        paragraphs.update(dict.fromkeys(plain(paragraph) for paragraph in topics[name].split("\n\n")))
    return "\n\n".join(paragraphs)


def plain(paragraph: str) -> str:
    """`paragraph` with single blanks, no blanks around its lines, and no lines drawn with characters."""
    lines = (_BLANKS.sub(" ", _RULE.sub("", line)).strip() for line in paragraph.splitlines())
    return "\n".join(line for line in lines if line)


def encode(text: str) -> Tensor:
    """Tokens (uint8): 0 for a new line, 1 to 95 for the printable ASCII characters; any other character is dropped."""
    kept = text.encode("ascii", "ignore")
    return torch.tensor([0 if byte == 10 else byte - 31 for byte in kept if byte == 10 or 32 <= byte < 127], dtype=torch.uint8)
