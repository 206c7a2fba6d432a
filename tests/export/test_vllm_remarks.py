from mpq.export.vllm_remarks import remarks
from mpq.formats.scheme import Scheme, parse_scheme


def told(texts: dict[str, str], *, columns: int = 64, linear: tuple[str, ...] = ()) -> list[str]:
    schemes: dict[str, Scheme] = {name: parse_scheme(text) for name, text in texts.items()}
    return remarks(schemes, dict.fromkeys(schemes, columns), [*schemes, *linear])


def test_what_vllm_reads_needs_no_remark() -> None:
    assert told({"a.q_proj": "int4-g32", "a.k_proj": "int4-g32", "a.o_proj": "int8"}) == []


def test_rows_that_do_not_fill_words_of_32_bits_are_named() -> None:
    # 36 codes of 8 bits fill 9 words; of 4 bits 4.5; of 3 bits, 64 codes fill 6
    assert told({"a": "int8"}, columns=36) == told({"a": "int3"}, columns=64) == []
    words = "each 32-bit word holds codes of one row only, and rows of a, b, c and 1 more do not fill whole words"
    reason = f"loads in Transformers, not in vLLM: {words}"
    assert told(dict.fromkeys("abcd", "int4"), columns=36) == [reason]


def test_fused_layers_of_unequal_schemes_are_named_by_their_first() -> None:
    assert told({"a.q_proj": "int4-g32"}, linear=("a.k_proj",)) == [
        "loads in Transformers, not in vLLM: it fuses layers that have unequal schemes here, with a.q_proj"
    ]


def test_both_reasons_are_one_remark() -> None:
    (note,) = told({"a.gate_proj": "int4", "a.up_proj": "int8"}, columns=33)
    assert note == (
        "loads in Transformers, not in vLLM: each 32-bit word holds codes of one row only, and rows of a.gate_proj, a.up_proj do not fill "
        "whole words; "
        "it fuses layers that have unequal schemes here, with a.gate_proj"
    )


def test_a_packed_head_is_remarked_where_the_rest_can_be_read() -> None:
    head = "vLLM 0.32 reads a packed lm_head; for versions that do not, leave it out: mpq analyze --ignore lm_head"
    assert told({"lm_head": "int4", "a": "int4"}) == [head]
    assert head not in told({"lm_head": "int4", "a": "int4"}, columns=33)
    assert told({"lm_head.inner": "int4"}) == []
