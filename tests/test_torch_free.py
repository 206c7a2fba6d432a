import subprocess
import sys
from pathlib import Path

import pytest

import mpq

ROOT = Path(mpq.__file__).parent


def modules(*rooms: str) -> list[str]:
    found = [path.relative_to(ROOT.parent).with_suffix("").parts for name in rooms for path in sorted((ROOT / name).glob("*.py"))]
    return [".".join(parts) for parts in found if parts[-1] != "__init__"]


GROUPS = {
    "the package": ["mpq"],
    "formats, budgets, files and settings": ["mpq.formats.scheme", "mpq.budget", "mpq.files", "mpq.config", "mpq.errors"],
    "formats": modules("formats"),
    "records": modules("records"),
    "search": modules("search"),
    "registries": [
        "mpq.analyze.methods.registry",
        "mpq.export.registry",
        "mpq.models.running.metric_registry",
        "mpq.tensors.quantizers.registry",
        "mpq.schemas",
    ],
    "the command line": ["mpq.cli.main"],
    "public names": [],
}
NAMES = ["AnalysisSettings", "Budget", "MpqError", "Plan", "Scheme", "SearchSettings", "Sensitivity", "read_plan", "search", "write_plan"]


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, mpq.cli.main; print(sorted({'numpy', 'optuna', 'pandas', 'scipy', 'torch'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize("group", GROUPS)
def test_torch_is_not_imported_by(group: str) -> None:
    lines = [f"import {name}" for name in GROUPS[group]] or [f"from mpq import {', '.join(NAMES)}"]
    code = "\n".join(["import sys", *lines, "sys.exit('torch' in sys.modules)"])
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr or "torch was imported"
