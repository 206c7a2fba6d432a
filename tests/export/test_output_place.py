"""An export is refused before the work where it cannot be written, and appears whole or not at all."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mpq.errors import HeldError, OutputError
from mpq.export.output_place import check_place, staged
from mpq.export.registry import target_named
from mpq.export.weights.compressed_tensors import CompressedTensors
from tests.cli.typed import environment

FULL = os.strerror(errno.ENOSPC)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, FULL), RuntimeError(f"I/O error: {FULL} (os error 28)"), ValueError(FULL)])
def test_a_full_disk_is_reported_in_one_line_whatever_a_library_raises(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(OutputError, match=rf"cannot write .*config\.json: {FULL}; choose another"),
        staged(tmp_path / "a", last="config.json"),
    ):
        raise error
    assert not (tmp_path / "a").exists()


def test_another_error_of_a_library_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="another fault"), staged(tmp_path / "a", last="config.json"):
        raise RuntimeError("another fault")


def test_a_place_that_cannot_be_written_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    missing = tmp_path / "none" / "model.onnx"
    with pytest.raises(
        OutputError, match=f"cannot write {missing}: there is no folder {missing.parent}; choose another place with --output"
    ):
        check_place(missing, folder=False)
    with pytest.raises(OutputError, match=r"it is a folder, and this target writes a file"):
        target_named("onnx").check_place(tmp_path)
    with pytest.raises(OutputError, match=r"it is a file, and this target writes a folder"):
        target_named("compressed-tensors").check_place(tmp_path / "file")
    with pytest.raises(OutputError, match=r"model: the name must end with \.xml"):
        target_named("openvino").check_place(tmp_path / "model")


def test_a_folder_with_another_model_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    with pytest.raises(OutputError, match="holds another model: choose another place with --output"):
        CompressedTensors().check_place(tmp_path)
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "compressed-tensors"}}')
    CompressedTensors().check_place(tmp_path)


@pytest.mark.parametrize("existing", [True, False])
def test_files_appear_together_and_the_last_one_only_with_the_others(tmp_path: Path, existing: bool) -> None:
    place = tmp_path / "model"
    if existing:
        place.mkdir()
        (place / "config.json").write_text("old")
        (place / "notes.txt").write_text("mine")
    with staged(place, last="config.json") as folder:
        (folder / "config.json").write_text("new")
        (folder / "model.safetensors").write_text("weights")
        assert (place / "config.json").exists() == existing
    assert (place / "config.json").read_text() == "new"
    assert sorted(file.name for file in place.iterdir()) == ["config.json", "model.safetensors", *(["notes.txt"] if existing else [])]
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_what_stops_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("old")

    def stopped() -> None:
        with staged(tmp_path, last="model.onnx") as folder:
            (folder / "model.onnx").write_text("ha")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_text() == "old"


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    def full() -> None:
        with staged(tmp_path, last="model.onnx"):
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"model.onnx: No space left on device; choose another place with --output"):
        full()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="there is a umask on POSIX systems")
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_files_have_the_mode_that_the_umask_leaves_whatever_wrote_them(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with staged(tmp_path / "model", last="config.json") as folder:
            (folder / "config.json").touch()
            os.close(os.open(folder / "model.safetensors", os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "model").iterdir()}
    assert modes == dict.fromkeys(("config.json", "model.safetensors"), 0o666 & ~mask)


def test_what_a_killed_export_left_is_removed_and_mixes_with_nothing(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from mpq.export.output_place import staged\n"
    code += "with staged(Path(sys.argv[1]), last='config.json') as folder: (folder / 'old.bin').touch(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "model")], env=environment(), check=False)
    assert [file.name for file in (tmp_path / "model").iterdir() if file.is_dir()] == [".config.json.partial"]
    with staged(tmp_path / "model", last="config.json") as folder:
        (folder / "config.json").touch()
    assert [file.name for file in (tmp_path / "model").iterdir()] == ["config.json"]


def test_a_second_export_to_the_same_place_is_refused(tmp_path: Path) -> None:
    def both() -> None:
        with staged(tmp_path, last="config.json"), staged(tmp_path, last="config.json"):
            pass

    with pytest.raises(HeldError, match=f"another export is writing {tmp_path / 'config.json'} "):
        both()
    with staged(tmp_path, last="a.onnx") as one, staged(tmp_path, last="b.onnx") as other:
        (one / "a.onnx").touch()
        (other / "b.onnx").touch()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]


def test_a_link_among_the_files_to_be_replaced_is_refused_and_nothing_moved(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("old")
    (tmp_path / "model.bin").symlink_to("elsewhere")

    def write() -> None:
        with staged(tmp_path, last="config.json") as folder:
            (folder / "config.json").write_text("new")
            (folder / "model.bin").touch()

    with pytest.raises(OutputError, match="it is a link to elsewhere"):
        write()
    assert (tmp_path / "config.json").read_text() == "old"
