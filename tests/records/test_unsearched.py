from mpq.records.unsearched import unsearched_line, unsearched_share


def test_what_is_not_searched_is_all_but_the_layers() -> None:
    assert unsearched_share(8000, 7000) == "1,000 bytes, 12.5% of the file"
    assert unsearched_line(8000, 7000) == "not searched: 1,000 bytes, 12.5% of the file (unquantized tensors, program and header)"


def test_the_dtype_is_told() -> None:
    told = "not searched: 1,000 bytes, 12.5% of the file (unquantized tensors in bf16, program and header)"
    assert unsearched_line(8000, 7000, dtype="bf16") == told
