import json

from hypothesis import given, settings
from hypothesis import strategies as st

from mpq.formats.scheme import parse_scheme
from mpq.formats.stored import DTYPE_BYTES
from mpq.records.artifact_layout import (
    TensorEntry,
    entry,
    file_bytes,
    header,
    header_length,
    in_file_order,
    layer_entries,
    layer_header_bytes,
    padded_length,
)

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
entry_sets = st.dictionaries(names, st.tuples(st.sampled_from(sorted(DTYPE_BYTES)), shapes), max_size=6).map(
    lambda found: [entry(name, dtype, shape) for name, (dtype, shape) in found.items()]
)
metadata = st.dictionaries(names, names, max_size=3)


@settings(deadline=None)
@given(entry_sets, metadata)
def test_the_header_is_json_of_the_predicted_length_with_tensors_end_to_end(entries: list[TensorEntry], facts: dict[str, str]) -> None:
    raw = header(entries, facts)
    length = int.from_bytes(raw[:8], "little")
    assert len(raw) == 8 + length == 8 + padded_length(header_length(entries, facts))
    data_bytes = sum(item.stored.bytes for item in entries)
    assert file_bytes(header_bytes=header_length(entries, facts), data_bytes=data_bytes) == len(raw) + data_bytes
    found = json.loads(raw[8:])
    assert json.loads(found.pop("__metadata__")["mpq"]) == facts
    end = 0
    for name, item in found.items():
        start, stop = item["data_offsets"]
        assert start == end
        assert start % DTYPE_BYTES[item["dtype"]] == 0, name
        end = stop
    assert end == data_bytes
    assert {name: (item["dtype"], tuple(item["shape"])) for name, item in found.items()} == {
        item.name: (item.stored.dtype, item.stored.shape) for item in entries
    }


@given(names, st.integers(1, 40), st.integers(1, 70), st.sampled_from(["int2", "int4-g32", "int3-asym-g16", "fp16", "fp32", "int8-asym"]))
def test_a_layer_adds_to_the_header_what_is_said_of_it(name: str, rows: int, columns: int, text: str) -> None:
    scheme, matrix = parse_scheme(text), (rows, columns)
    without = header_length([], {"layers": {name: {"scheme": ""}}})
    whole = header_length(layer_entries(name, matrix, scheme), {"layers": {name: {"scheme": text}}})
    assert whole - without == layer_header_bytes(name, matrix, scheme)


def test_an_entry_takes_the_same_space_wherever_it_lies() -> None:
    small, large = [entry("a", "F32", (1,))], [entry("a", "F32", (1,)), entry("b", "F64", (10**9, 10**3))]
    assert header_length(large, {}) - header_length(small, {}) == entry("b", "F64", (10**9, 10**3)).header_bytes


def test_wide_elements_come_first_then_names() -> None:
    entries = [entry("b", "U8", (3,)), entry("z", "F32", (1,)), entry("a", "U8", (1,)), entry("c", "F64", ())]
    assert [item.name for item in in_file_order(entries)] == ["c", "z", "a", "b"]


def test_data_starts_at_a_multiple_of_eight() -> None:
    assert [padded_length(length) for length in (0, 1, 7, 8, 9)] == [0, 8, 8, 8, 16]
