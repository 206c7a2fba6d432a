import errno
import os
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mpq.demo import NAMES, demo_files, write_demo
from mpq.errors import UsageError
from mpq.files import OutputError

MODELS = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "demo_models.py"))
CHARS_NATS = 1.3643  # as trained; another machine rounds otherwise


def run(name: str, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        logits = torch.export.load(demo_files(name).model).module()(inputs)
    assert isinstance(logits, Tensor)
    return logits


def test_the_shipped_files_are_under_one_megabyte_together() -> None:
    folder = demo_files("digits").model.parent
    files = [folder / f"{name}{suffix}" for name in NAMES for suffix in (".pt2", ".safetensors")]
    assert sum(path.stat().st_size for path in files) < 1_000_000


def test_digits_data_have_their_documented_shapes() -> None:
    demo = demo_files("digits")
    assert demo.labels is not None
    assert (demo.calibration.shape, demo.test.shape, demo.labels.shape) == ((256, 1, 8, 8), (500, 1, 8, 8), (500,))
    assert (demo.calibration.dtype, demo.test.dtype, demo.labels.dtype) == (torch.float32, torch.float32, torch.int64)
    assert (float(demo.test.min()), float(demo.test.max())) == (0.0, 1.0)


def test_chars_data_have_their_documented_shapes() -> None:
    demo = demo_files("chars")
    assert (demo.calibration.shape, demo.test.shape, demo.labels) == ((64, 128), (128, 128), None)
    assert (demo.calibration.dtype, demo.test.dtype) == (torch.int64, torch.int64)
    assert int(demo.test.max()) < MODELS["VOCABULARY"]


def test_digits_classifies_its_test_images() -> None:
    demo = demo_files("digits")
    assert demo.labels is not None
    assert float((run("digits", demo.test).argmax(1) == demo.labels).float().mean()) >= 0.975


def test_chars_predicts_text_that_it_never_saw() -> None:
    tokens = demo_files("chars").test
    nats = F.cross_entropy(run("chars", tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    assert float(nats) <= 1.05 * CHARS_NATS


@pytest.mark.parametrize("name", NAMES)
def test_calibration_and_test_data_share_no_sample(name: str) -> None:
    demo = demo_files(name)
    assert not (demo.calibration.flatten(1)[:, None] == demo.test.flatten(1)).all(2).any()


@pytest.mark.parametrize("name", NAMES)
def test_the_archives_take_batches_of_any_size(name: str) -> None:
    test = demo_files(name).test
    assert [len(run(name, test[:size])) for size in (1, 3)] == [1, 3]


def test_chars_takes_shorter_windows() -> None:
    assert run("chars", demo_files("chars").test[:2, :50]).shape == (2, 50, 96)


@pytest.mark.parametrize(("name", "model"), [("digits", "DigitsModel"), ("chars", "CharsModel")])
def test_the_eager_module_with_the_shipped_weights_gives_the_same_logits(name: str, model: str) -> None:
    demo, module = demo_files(name), MODELS[model]().eval()
    module.load_state_dict(torch.export.load(demo.model).state_dict)
    with torch.no_grad():
        torch.testing.assert_close(module(demo.test[:4]), run(name, demo.test[:4]))


def test_the_archives_name_no_folder_of_the_machine_that_made_them() -> None:
    for name in NAMES:
        with zipfile.ZipFile(demo_files(name).model) as archive:
            content = b"".join(archive.read(entry) for entry in archive.namelist() if "weight_" not in entry)
        assert b".py" not in content


def test_an_unknown_demo_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        demo_files("letters")
    assert str(caught.value) == "'letters' is not a demo model: use digits or chars"


def test_written_digits_are_a_model_images_and_labels(tmp_path: Path) -> None:
    write_demo("digits", tmp_path / "new")
    demo = demo_files("digits")
    images, labels = torch.load(tmp_path / "new" / "test.pt", weights_only=True)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["calibration.pt", "model.pt2", "test.pt"]
    assert demo.labels is not None
    assert torch.equal(images, demo.test)
    assert torch.equal(labels, demo.labels)


def test_written_chars_are_a_model_and_tokens(tmp_path: Path) -> None:
    write_demo("chars", tmp_path)
    demo = demo_files("chars")
    assert torch.equal(torch.load(tmp_path / "calibration.pt", weights_only=True), demo.calibration)
    assert torch.equal(torch.load(tmp_path / "test.pt", weights_only=True), demo.test)
    assert (tmp_path / "model.pt2").read_bytes() == demo.model.read_bytes()


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError) as caught:
        write_demo("chars", tmp_path / "file" / "inside")
    expected = f"cannot make the folder {tmp_path / 'file' / 'inside'}: {os.strerror(errno.ENOTDIR)}; choose another with --keep"
    assert str(caught.value) == expected


def test_the_names_are_known_without_importing_torch() -> None:
    code = "import sys, mpq.demo; assert mpq.demo.NAMES; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0
