from typing import Any

import pytest

from mpq.data.image_transform import Transform, transform_of_config, transform_of_text
from mpq.errors import DataError

RESNET = {
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.2, 0.1],
    "do_normalize": True,
    "resample": 3,
}


def test_settings_after_a_folder_change_the_transform() -> None:
    found = transform_of_text("resize=256&crop=224&mean=0.5,0.4,0.3&std=0.2,0.2,0.1", "d", Transform())
    assert found == Transform(256, (224, 224), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))
    assert str(found) == "shorter side to 256, middle 224 x 224, values 0 to 1, mean 0.5 0.4 0.3, std 0.2 0.2 0.1"
    assert transform_of_text("resize=8x6", "d", found).resize == (8, 6)
    assert transform_of_text("", "d", found) == found


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (RESNET, Transform(256, (224, 224), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1), resample=3)),
        ({"size": {"height": 32, "width": 48}, "do_normalize": False}, Transform((32, 48))),
        ({"size": 224, "do_center_crop": True, "do_rescale": False}, Transform(224, (224, 224), scale=1.0)),
        ({"do_resize": False, "size": 224}, Transform()),
        ({}, Transform()),
    ],
)
def test_a_preprocessor_config_is_read(config: dict[str, Any], expected: Transform) -> None:
    assert transform_of_config(config, "c") == expected


@pytest.mark.parametrize("text", ["resize=0", "resize=a", "crop=1x2x3", "mean=x", "std=0,1,1", "resize=99999", "size=3", "resize"])
def test_settings_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"^d: (images have no setting 'size'|(resize|crop|mean|std)='.*' cannot be read); (use|write) "):
        transform_of_text(text, "d", Transform())


@pytest.mark.parametrize(
    "changes", [{"size": "big"}, {"size": {}}, {"image_std": None}, {"image_mean": [None]}, {"resample": []}, {"size": 10**9}]
)
def test_a_damaged_config_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"^c: its sizes, mean or std cannot be read; write them after the folder"):
        transform_of_config({**RESNET, **changes}, "c")
