from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mpq.errors import FormatError
from mpq.records.artifact import PROGRAM, ArtifactHeader
from mpq.records.stands_alone import stands_alone


def header(kind: str, config: dict[str, str] | None = None) -> ArtifactHeader:
    return ArtifactHeader({"kind": kind}, "rtn", (), {}, {}, config or {})


@pytest.mark.parametrize("kind", ["state_dict", "pickle", "torchscript", "memory"])
def test_weights_alone_need_a_module(kind: str, tmp_path: Path) -> None:
    assert not stands_alone(header(kind), tmp_path / "none.safetensors")


def test_an_exported_program_stands_alone_where_the_artifact_carries_it(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "bare")
    save_file({"w": torch.zeros(2), PROGRAM: torch.zeros(2, dtype=torch.uint8)}, tmp_path / "whole")
    assert stands_alone(header("export"), tmp_path / "whole")
    assert not stands_alone(header("export"), tmp_path / "bare")
    assert not stands_alone(header("state_dict"), tmp_path / "whole")


def test_a_hugging_face_model_stands_alone_by_its_configuration(tmp_path: Path) -> None:
    assert stands_alone(header("hf", {"architecture": "LlamaForCausalLM"}), tmp_path / "none")
    assert not stands_alone(header("hf"), tmp_path / "none")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        stands_alone(replace(header("export")), tmp_path / "none")
