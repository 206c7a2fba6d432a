"""The name under which mpq is installed, and its version. No torch.

The name `mpq` is taken on PyPI, so every installation hint is built here.
"""

from __future__ import annotations

DISTRIBUTION = "mpq-torch"  # on PyPI; the import and the command are `mpq`
VERSION = "0.1.0"
HEAVY = ("torch", "optuna", "scipy", "safetensors", "jinja2", "zstandard")  # required, but not by `mpq check`


def requirement(extra: str) -> str:
    """One extra of mpq, as a requirement for pip."""
    return f"{DISTRIBUTION}[{extra}]"


def install(extra: str) -> str:
    """The command that installs one extra of mpq, for the end of an error message."""
    return f"pip install '{requirement(extra)}'"
