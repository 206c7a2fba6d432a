import subprocess
import sys
import tomllib
from pathlib import Path

import mpq
from mpq.integrations import vllm_plugin

PROJECT = Path(mpq.__file__).parents[1] / "pyproject.toml"


def test_the_entry_point_leads_to_the_function() -> None:
    points = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["entry-points"]["vllm.general_plugins"]
    assert points == {"mpq": f"{vllm_plugin.__name__}:{vllm_plugin.register.__name__}"}


def test_naming_the_plugin_imports_neither_vllm_nor_torch() -> None:
    code = "import sys, mpq.integrations.vllm_plugin; print(sorted({'vllm', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
