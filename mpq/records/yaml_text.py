"""Text of YAML files as people read and edit them. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Writes repeated values in full, since plans are read without aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def yaml_text(value: Mapping[str, Any]) -> str:
    """A mapping as YAML, its keys in their order."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return text


def yaml_key(text: str) -> str:
    """`text` as a YAML key on one line, quoted where YAML needs it."""
    key = yaml.safe_dump({text: 0}, allow_unicode=True, width=10**6)[: -len(": 0\n")]
    simple = not key.startswith("? ")  # YAML would spread long and multi-line texts over two lines
    return key if simple else yaml.safe_dump(text, allow_unicode=True, width=10**6, default_style='"').rstrip("\n")
