"""Code that a file names: the factory of a model or the callable that makes data, as `package.module:callable`. No torch.

A plan, a sensitivity file, an artifact or a budgets file may come from anyone, so what such a file names is imported and called only
with `--trust`. What the user writes, on the command line or in the file of `--config`, needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from mpq.errors import TrustError
from mpq.shown import shown_bare


def named_factory(facts: Mapping[str, Any], file: Path, *, trust: bool) -> str | None:
    """The factory that a file names for its model, if it names one and is trusted.

    Args:
        facts: of the model, as the file says.
        file: that holds the facts.
        trust: whether the user trusts the file.

    Raises:
        TrustError: if it is not trusted.
    """
    named = facts.get("factory")
    if named is not None and not trust:
        refuse_code(str(named), file, remedy=f"name it yourself with --builder {shown_bare(named)}, or add --trust if you trust the file")
    return None if named is None else str(named)


def refuse_code(called: str, file: Path, *, remedy: str = "add --trust if you trust the file") -> NoReturn:
    """Refuse code that a file names.

    Raises:
        TrustError: always.
    """
    raise TrustError(f"{file} asks mpq to import and call {shown_bare(called)}, which needs your permission: {remedy}")
