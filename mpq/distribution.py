"""Under which name mpq is installed, and which version this is. No torch.

The name `mpq` belongs to another program on PyPI, so every text that says how to install something takes its words from here.
"""

from __future__ import annotations

DISTRIBUTION = "mpq-torch"  # on PyPI; the import and the command are `mpq`
VERSION = "0.1.0"
HEAVY = ("torch", "optuna", "scipy", "safetensors", "jinja2", "zstandard")  # required, but not for what `requirements-check.txt` installs


def requirement(extra: str) -> str:
    """One extra of mpq, as pip takes it."""
    return f"{DISTRIBUTION}[{extra}]"


def install(extra: str) -> str:
    """The command that installs one extra of mpq, for the end of an error message."""
    return f"pip install '{requirement(extra)}'"
