from mpq.records.plan_table import layer_rows, layers_page
from tests.small import schemes

INT4, FP16 = schemes("int4-g32", "fp16")
ROWS = layer_rows({"a": INT4, "b": FP16}, {"a": (4, 32), "b": (8, 16)}, ("b",))


def test_each_layer_has_its_bytes_and_bits_with_scales() -> None:
    assert ROWS == [
        {"layer": "a", "scheme": "int4-g32", "rows": 4, "columns": 32, "weights": 128, "bytes": 72, "effective_bits": 4.5, "pinned": False},
        {"layer": "b", "scheme": "fp16", "rows": 8, "columns": 16, "weights": 128, "bytes": 256, "effective_bits": 16.0, "pinned": True},
    ]


def test_the_page_begins_with_the_largest_layer_and_its_bars_are_in_model_order() -> None:
    page = layers_page("two layers", ROWS)
    assert page.index(">b<") < page.index(">a<")
    assert ">▁█<" in page
