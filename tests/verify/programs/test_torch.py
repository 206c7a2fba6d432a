from pathlib import Path

from mpq.verify.programs.torch import Torch
from tests.verify.making import check_loaded


def test_an_export_is_loaded_with_its_weights_and_gives_the_outputs_of_the_artifact(tmp_path: Path) -> None:
    check_loaded(tmp_path, Torch(), "pt2", "out.pt2", tells_used=False)


def test_it_is_the_program_of_its_target() -> None:
    assert Torch.targets == ("pt2",)
