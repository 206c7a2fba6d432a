from mpq.records.plan_size import Size


def test_what_is_not_searched_is_the_rest_of_the_file() -> None:
    size = Size(effective_bits=4.5, layer_bytes=100, file_bytes=160, file_effective_bits=5.0)
    assert size.unsearched_bytes == 60
    assert size.to_dict() == {
        "effective_bits": 4.5,
        "layer_bytes": 100,
        "file_bytes": 160,
        "file_effective_bits": 5.0,
        "unsearched_bytes": 60,
    }
