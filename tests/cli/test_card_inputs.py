import json
from pathlib import Path

import pytest

from mpq.cli.card_inputs import with_card
from mpq.errors import FormatError, UsageError
from mpq.export.base import Options

ARTIFACT = Path("no-such.mpq.safetensors")
FIGURES = [{"name": "loss", "reference": 1.0, "quantized": 2.0, "stderr": None}]


@pytest.mark.parametrize("name", ["llama", "a/b/c", "/b", "a/", "/"])
def test_a_base_model_has_an_organization_and_a_name(name: str) -> None:
    with pytest.raises(UsageError) as error:
        with_card(Options(), ARTIFACT, base_model=name, evaluation=None)
    assert str(error.value) == f"--base-model {name} is not a model of the hub: write ORG/NAME"


def test_an_evaluation_is_read(tmp_path: Path) -> None:
    file = tmp_path / "eval.json"
    file.write_text(json.dumps({"samples": 8, "source": "test.pt", "figures": FIGURES}))
    options = with_card(Options(), ARTIFACT, base_model="a/b", evaluation=file)
    assert options.base_model == "a/b"
    assert options.evaluation == {"samples": 8, "source": "test.pt", "figures": FIGURES}


@pytest.mark.parametrize("text", ["{", "[]", '{"samples": 8, "source": "a"}', '{"samples": 8, "source": "a", "figures": [{"name": "b"}]}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "eval.json"
    file.write_text(text)
    with pytest.raises(FormatError, match=r"eval\.json"):
        with_card(Options(), ARTIFACT, base_model=None, evaluation=file)
