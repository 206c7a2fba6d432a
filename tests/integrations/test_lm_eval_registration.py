import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mpq

registry: Any = pytest.importorskip("lm_eval.api.registry")


@pytest.mark.parametrize("first", ["import mpq, lm_eval.api.registry as r", "import lm_eval.api.registry as r, mpq"])
def test_the_harness_knows_mpq_whichever_comes_first(first: str) -> None:
    code = f"{first}\nimport sys\nprint('mpq' in r.model_registry, 'mpq.integrations.lm_eval_model' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=Path(mpq.__file__).parent.parent, capture_output=True, text=True, check=True)
    assert found.stdout == "True False\n"


def test_registering_again_changes_nothing() -> None:
    module = importlib.import_module("mpq.integrations.lm_eval_registration")
    importlib.reload(module)
    assert registry.get_model("mpq").__name__ == "MpqLM"
