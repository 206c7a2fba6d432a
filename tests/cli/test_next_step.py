"""The next step that a command prints, and the Python that runs an artifact."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from mpq.cli.next_step import code_options, python_load
from mpq.models.sources.loaded import LoadedModel


@pytest.mark.parametrize(
    ("model", "data", "trust", "expected"),
    [
        ({"kind": "export"}, {"source": "data.pt"}, False, ""),
        ({"kind": "export"}, {}, True, " --trust"),
        ({"kind": "pickle"}, {}, False, " --trust"),
        ({"kind": "state_dict", "factory": "net:make"}, {"source": "data.pt"}, False, " --builder net:make"),
        ({"kind": "state_dict", "factory": "net:make it"}, {}, True, " --builder 'net:make it' --trust"),
        ({"kind": "export"}, {"source": "net:samples"}, False, " --trust"),
        ({"kind": "export"}, {"source": "pack.net:Data.all"}, False, " --trust"),
        ({"kind": "export"}, {"source": "data.pt?inputs=a:b"}, False, ""),
        ({"kind": "export"}, {"source": "C:\\data.pt"}, False, ""),
    ],
)
def test_the_options_are_those_without_which_code_would_not_be_called(
    model: dict[str, Any], data: dict[str, Any], trust: bool, expected: str
) -> None:
    assert code_options(model, data, trust=trust) == expected


def test_a_file_with_the_name_of_a_callable_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert code_options({}, {"source": "net:samples"}, trust=False) == " --trust"
    Path("net:samples").touch()
    assert code_options({}, {"source": "net:samples"}, trust=False) == ""


def loaded(kind: str, **facts: Any) -> LoadedModel:
    return LoadedModel(nn.Identity(), kind, "0", path=Path("m.pt"), **facts)


@pytest.mark.parametrize(
    ("model", "trust", "expected"),
    [
        (loaded("export", program=b"x"), False, "mpq.load('a.mpq.safetensors')"),
        (loaded("hf", config={}), False, "mpq.load('a.mpq.safetensors')"),
        (loaded("state_dict", factory="pack.net:Net"), False, "import pack.net; mpq.load('a.mpq.safetensors', pack.net.Net())"),
        (loaded("torchscript"), False, "mpq.load('a.mpq.safetensors', mpq.load_model('m.pt').module)"),
        (loaded("pickle"), False, "mpq.load('a.mpq.safetensors', mpq.load_model('m.pt', trust=True).module)"),
        (loaded("export"), True, "mpq.load('a.mpq.safetensors', mpq.load_model('m.pt', trust=True).module)"),
    ],
)
def test_an_artifact_is_run_with_the_module_that_it_needs(model: LoadedModel, trust: bool, expected: str) -> None:
    assert python_load(Path("a.mpq.safetensors"), model, trust=trust) == expected
