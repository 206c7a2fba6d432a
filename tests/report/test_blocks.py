import pytest

from mpq.report.blocks import block_of


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("model.layers.3.mlp.up_proj", "model.layers.3"),
        ("model.layers.3.experts.7.w1", "model.layers.3"),
        ("layer1.0.conv1", "layer1.0"),
        ("features.7", "features"),
        ("conv1", "conv1"),
        ("encoder.head", "encoder.head"),
        ("0", "0"),
        ("0.weight", "0"),
        ("", ""),
    ],
)
def test_a_block_is_the_name_up_to_its_first_inner_number(name: str, block: str) -> None:
    assert block_of(name) == block
