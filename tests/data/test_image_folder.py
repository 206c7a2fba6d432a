import json
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mpq.data import image_folder
from mpq.data.image_folder import read_images
from mpq.errors import DataError

image = pytest.importorskip("PIL.Image")


def draw(path: Path, *, size: tuple[int, int] = (6, 4), value: int = 0) -> Path:
    """Width x height pixels of (value, column, row)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = image.new("RGB", size)
    made.putdata([(value, column, row) for row in range(size[1]) for column in range(size[0])])
    made.save(path)
    return path


def read(folder: Path, settings: str = "", **choices: Any) -> tuple[tuple[Tensor, ...], list[str]]:
    found = read_images(folder, "d", settings=settings, **{"model": None, "num_samples": None, **choices})
    assert found is not None
    return found


def refused(folder: Path, settings: str = "") -> str:
    with pytest.raises(DataError) as caught:
        read(folder, settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_images_are_scaled_to_one_and_have_their_channels_first(tmp_path: Path) -> None:
    draw(tmp_path / "b.png", value=255)
    draw(tmp_path / "a.PNG", value=51)
    (images,), notes = read(tmp_path)
    assert images.shape == (2, 3, 4, 6)
    assert images[:, 0, 0, 0].tolist() == pytest.approx([0.2, 1.0])
    assert float(images[0, 0, 0, 0]) == pytest.approx(0.2)  # by name
    assert torch.allclose(images[0, 1] * 255, torch.arange(6.0).expand(4, 6))
    assert notes == ["2 images, values 0 to 1 (neither settings nor preprocessor_config.json)"]


def test_folders_are_classes_that_take_turns(tmp_path: Path) -> None:
    for name, count in (("dog", 1), ("cat", 3)):
        for number in range(count):
            draw(tmp_path / name / f"{number}.png", value=number)
    (images, labels), notes = read(tmp_path)
    assert labels.tolist() == [0, 1, 0, 0]
    assert (images[:, 0, 0, 0] * 255).round().tolist() == [0, 0, 1, 2]
    assert read(tmp_path, num_samples=2)[0][1].tolist() == [0, 1]
    assert notes[0].startswith("4 images of 2 classes, ")


def test_images_spread_over_the_classes_and_over_each_of_them(tmp_path: Path) -> None:
    for name in "abc":
        for number in range(5):
            draw(tmp_path / name / f"{number}.png", value=number)
    (images, labels), notes = read(tmp_path, num_samples=8, spread=True)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert (images[:, 0, 0, 0] * 255).round().tolist() == [0, 0, 0, 3, 3, 3, 1, 1]
    assert notes[0].startswith("8 of 15 images, spread evenly over the folder, of 3 classes, ")
    assert read(tmp_path, num_samples=2, spread=True)[0][1].tolist() == [0, 1]
    assert torch.equal(read(tmp_path, spread=True)[0][0], read(tmp_path)[0][0])


def test_resize_crop_and_normalization_are_those_of_torchvision(tmp_path: Path) -> None:
    path = draw(tmp_path / "a.png", size=(9, 6))
    (images,), notes = read(tmp_path, "resize=4&crop=3&mean=0.5,0.5,0.5&std=0.5,0.25,0.5")
    with image.open(path) as opened:
        expected = opened.resize((6, 4), 2).crop((2, 0, 5, 3))
        pixels = torch.tensor([expected.getpixel((column, row)) for row in range(3) for column in range(3)]).view(3, 3, 3)
    values = (pixels.permute(2, 0, 1) / 255 - 0.5) / torch.tensor([0.5, 0.25, 0.5]).view(3, 1, 1)
    assert torch.allclose(images[0], values)
    assert notes == ["1 images, shorter side to 4, middle 3 x 3, values 0 to 1, mean 0.5 0.5 0.5, std 0.5 0.25 0.5 (as asked)"]


def test_a_preprocessor_config_of_the_folder_counts_before_that_of_the_model(tmp_path: Path) -> None:
    draw(tmp_path / "photos" / "a.png")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 5, "width": 7}}))
    assert read(tmp_path / "photos", model=tmp_path / "model")[0][0].shape == (1, 3, 5, 7)
    (tmp_path / "photos" / "preprocessor_config.json").write_text(json.dumps({"size": 2}))
    (images,), notes = read(tmp_path / "photos", "crop=2", model=tmp_path / "model")
    assert images.shape == (1, 3, 2, 2)
    assert notes[0].endswith("(by preprocessor_config.json and as asked)")


def test_one_mean_makes_grey_images(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    assert read(tmp_path, "mean=0&std=1")[0][0].shape == (1, 1, 4, 6)


def test_images_of_several_sizes_need_one(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png", size=(5, 5))
    assert refused(tmp_path) == "d: b.png gives 5 x 5 and a.png 4 x 6; set one size, as in 'd?resize=256&crop=224'"
    assert read(tmp_path, "resize=4&crop=4")[0][0].shape == (2, 3, 4, 4)


def test_a_folder_without_images_is_none_of_this_kind(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    (tmp_path / "empty").mkdir()
    assert read_images(tmp_path, "d", settings="", model=None, num_samples=None) is None


def png_of(width: int, height: int) -> bytes:
    """The head of a PNG that claims a size."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return start + struct.pack(">I", 10) + b"IDAT" + bytes(10)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read as an image ("),
        (b"GIF89a" + bytes(50), "cannot be read as an image ("),
        (png_of(8, 8), "cannot be read as an image ("),
        (png_of(9_000, 9_000), "has 9000 x 9000 pixels, more than the 67,108,864 allowed"),
        (png_of(60_000, 60_000), "cannot be read as an image ("),
    ],
)
def test_files_that_are_not_what_they_claim_are_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    assert refused(tmp_path).startswith(f"{tmp_path / 'a.png'} {reason}")


def test_no_more_is_read_than_a_file_has_whatever_it_says(tmp_path: Path) -> None:
    path = draw(tmp_path / "a.png")
    content = path.read_bytes()
    place = content.index(b"IDAT") - 4
    path.write_bytes(content[:place] + struct.pack(">I", 2**31 - 1) + content[place + 4 :])
    tracemalloc.start()
    try:
        (found,), _ = read(tmp_path)  # Pillow is content with what is there
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
    assert found.shape == (1, 3, 4, 6)


def test_more_images_than_memory_takes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "a.png")
    monkeypatch.setattr(image_folder, "IMAGES_BYTES", 100)
    assert refused(tmp_path) == "d holds 1 images, more than 100 bytes as tensors: use fewer with --num-samples"


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_damaged_config_is_named(tmp_path: Path, text: str) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "preprocessor_config.json").write_text(text)
    assert refused(tmp_path).startswith(str(tmp_path / "preprocessor_config.json"))


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert refused(tmp_path) == "d holds images, which need Pillow: pip install 'mpq-torch[data]', or give tensors"
