"""What was exported is run next to the artifact, and refused if it computes something else."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mpq.data.dataset import Batch
from mpq.export.abilities import ExportError
from mpq.export.base import Options
from mpq.export.run import export
from mpq.export.source import open_source
from mpq.export.weights import compare
from tests.export.artifacts import by_name, make

X = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
HERE = "tests.export.weights.test_compare"
QUESTIONS: dict[str, Callable[[], bool]] = {
    "exporting": torch.compiler.is_exporting,
    "compiling": torch.compiler.is_compiling,
    "onnx": torch.onnx.is_in_onnx_export,
}


class Asks(nn.Module):
    """Gives scores of one column less, or other scores, while it is exported."""

    def __init__(self, question: str, *, shape: bool = False) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(32, 32), nn.Linear(32, 5)
        self._question, self._shape = QUESTIONS[question], shape

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(torch.relu(self.inner(x)))
        if not self._question():
            return found
        return found[:, :-1] if self._shape else found.softmax(-1)


def exporting() -> nn.Module:
    return Asks("exporting")


def compiling() -> nn.Module:
    return Asks("compiling")


def onnx() -> nn.Module:
    return Asks("onnx")


def shorter() -> nn.Module:
    return Asks("exporting", shape=True)


def plain() -> nn.Module:
    return Asks("exporting").inner


def artifact(folder: Path, factory: Callable[[], nn.Module]) -> tuple[Path, Options]:
    torch.manual_seed(0)
    save_file(factory().state_dict(), folder / "model.safetensors")
    torch.save(X, folder / "data.pt")
    name = f"{HERE}:{factory.__name__}"
    _, made = make(folder / "model.safetensors", Batch((X,)), by_name({}, "int8"), folder, factory=name)
    return made, Options(data=str(folder / "data.pt"), factory=name)


@pytest.mark.parametrize(
    ("target", "package", "factory"),
    [
        ("pt2", "torch", exporting),
        ("pt2", "torch", compiling),
        ("onnx", "onnxruntime", exporting),
        ("onnx", "onnxruntime", compiling),
        ("openvino", "openvino", exporting),
        ("executorch", "executorch", exporting),
    ],
)
def test_a_model_that_computes_something_else_while_it_is_exported_is_refused(
    tmp_path: Path, target: str, package: str, factory: Callable[[], nn.Module]
) -> None:
    pytest.importorskip(package)
    made, options = artifact(tmp_path, factory)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(
        ExportError, match=rf"{package} gives different outputs than the artifact: 'output' differs by \d.*--no-compare writes"
    ):
        export(made, target, options=options)
    assert sorted(tmp_path.iterdir()) == before


def test_outputs_of_another_shape_are_refused_and_written_when_asked(tmp_path: Path) -> None:
    made, options = artifact(tmp_path, shorter)
    with pytest.raises(ExportError, match=r"torch gives outputs of shape \[\[2, 4\]\], the artifact of \[\[2, 5\]\]"):
        export(made, "pt2", options=options)
    done = export(made, "pt2", options=Options(options.data, factory=options.factory, compare=False))
    assert done.path.exists()
    assert done.notes[0] == "not compared with the artifact, as asked"


@pytest.mark.parametrize(("target", "package"), [("pt2", "torch"), ("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_the_largest_difference_is_told(tmp_path: Path, target: str, package: str) -> None:
    pytest.importorskip(package)
    made, options = artifact(tmp_path, plain)
    (told,) = [note for note in export(made, target, options=options).notes if note.startswith("compared with the artifact by")]
    assert told.startswith(f"compared with the artifact by {package} on a small batch: outputs differ by at most ")
    assert float(told.split()[-5]) < 1e-5


def test_a_runtime_that_does_not_run_it_is_named(tmp_path: Path) -> None:
    def opened() -> compare.Run:
        raise ImportError("No module named 'runtime'")

    made, options = artifact(tmp_path, plain)
    told = compare.compared(open_source(made), options, "runtime", opened, tolerance=1.0, main=False)
    assert told == "not compared with the artifact: runtime does not run it here (No module named 'runtime')"


@pytest.mark.parametrize(
    ("wanted", "found", "share"),
    [
        ([1.0, -4.0], [1.0, -3.0], 0.25),
        ([1.0, -torch.inf], [1.0, torch.finfo(torch.float32).min], 0.0),  # both suppressed
        ([1.0, -1e9], [2.0, -1e9], 1.0),  # the scale is that of the others
        ([1.0, 2.0], [1.0, torch.nan], torch.inf),
        ([0.0, 0.0], [0.0, 0.5], 0.5),
    ],
)
def test_a_difference_is_a_share_of_the_largest_value_that_counts(wanted: list[float], found: list[float], share: float) -> None:
    assert compare.apart(torch.tensor(wanted).double(), torch.tensor(found).double()) == share


def test_steps_are_those_of_the_range_of_the_expected_output() -> None:
    expected = {"a": torch.tensor([0.0, 2.55]), "b": torch.tensor([1.0, 1.0])}
    assert compare.steps_apart(expected, [torch.tensor([0.02, 2.55]), torch.tensor([1.0, 1.0])]) == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize("mask", [-torch.inf, torch.finfo(torch.float32).min, -1e9])
def test_suppressed_classes_neither_widen_the_range_nor_count_as_apart(mask: float) -> None:
    wanted, found = torch.tensor([[0.0, 2.55, mask]]), torch.tensor([[0.02, 2.55, mask]])
    assert compare.steps_apart({"logits": wanted}, [found]) == pytest.approx(2.0, rel=1e-5)
    assert compare.steps_apart({"logits": torch.full((1, 2), mask)}, [torch.full((1, 2), mask)]) == 0


def test_outputs_further_away_than_rounding_explains_are_refused() -> None:
    plain, rounded = torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64) + 0.01
    compare._refuse_beyond_rounding([plain], {"y": rounded}, [rounded + 0.04], "program")
    with pytest.raises(
        ExportError,
        match=r"program gives different outputs .*: 'y' differs by 0\.06 \(root mean square\), 6 times what rounding its activations",
    ):
        compare._refuse_beyond_rounding([plain], {"y": rounded}, [rounded + 0.06], "program")


def test_without_an_effect_of_rounding_half_a_step_is_allowed() -> None:
    same = torch.ones(8)
    compare._refuse_beyond_rounding([same], {"y": same}, [same + 0.0015], "program")
    with pytest.raises(ExportError, match=r"'y' differs by 0\.01"):
        compare._refuse_beyond_rounding([same], {"y": same}, [same + 0.01], "program")
