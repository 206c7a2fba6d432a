from mpq.records.loaded import loaded_bytes
from mpq.schemes import parse_scheme

MATRICES = {"a": (8, 64), "b": (4, 4)}
SCHEMES = {"a": parse_scheme("int4-g32"), "b": parse_scheme("fp16")}


def test_dense_layers_take_what_they_took_before_whatever_their_scheme() -> None:
    assert loaded_bytes(SCHEMES, MATRICES, original_bytes=2112, rest_bytes=40, form="dense") == 2152


def test_packed_layers_take_codes_and_scales() -> None:
    codes, scales, values = 8 * 64 // 2, 8 * 2 * 2, 16 * 2
    assert loaded_bytes(SCHEMES, MATRICES, original_bytes=2112, rest_bytes=40, form="packed") == codes + scales + values + 40
