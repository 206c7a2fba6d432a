import pytest

from mpq.records.layer import Layer


@pytest.mark.parametrize(
    ("shape", "axes", "matrix"),
    [((8, 3), (0,), (8, 3)), ((8, 3), (1,), (3, 8)), ((4, 6, 5), (0, 2), (20, 6)), ((4, 6, 5), (0,), (4, 30)), ((7, 2), (0, 1), (14, 1))],
)
def test_rows_are_the_output_axes_and_columns_all_others(shape: tuple[int, ...], axes: tuple[int, ...], matrix: tuple[int, int]) -> None:
    assert Layer("x", ("x",), shape, axes, "float32").matrix == matrix


def test_groups_have_rows_of_their_own_and_are_told_where_there_are_several() -> None:
    layer = Layer("up", ("up.weight",), (4, 3, 2, 2), (1,), "float32", groups=2)
    assert (layer.matrix, layer.to_dict()["groups"]) == ((6, 8), 2)
    assert "groups" not in Layer("up", ("up.weight",), (4, 3, 2, 2), (1,), "float32").to_dict()


@pytest.mark.parametrize(("dtype", "expected"), [("float32", 384), ("float16", 192), ("bfloat16", 192)])
def test_original_bytes_follow_the_dtype(dtype: str, expected: int) -> None:
    layer = Layer("x", ("x",), (3, 8, 2, 2), (1,), dtype)
    assert (layer.weights, layer.original_bytes) == (96, expected)
