import pytest

from mpq.export.abilities import ExportError
from mpq.export.fused_schemes import check_fused
from tests.small import schemes

A, B = schemes("int4-g32", "int8-g32")
QKV = ("l.q_proj", "l.k_proj", "l.v_proj")


def test_equal_schemes_and_layers_that_are_not_fused_pass() -> None:
    check_fused(dict.fromkeys(QKV, A) | {"l.o_proj": B}, [*QKV, "l.o_proj"])
    check_fused({}, QKV)
    check_fused({"l.q_proj": A, "m.k_proj": B}, ["l.q_proj", "m.k_proj"])
    check_fused({}, [])


@pytest.mark.parametrize(
    ("chosen", "shown"),
    [
        ({"l.q_proj": A, "l.k_proj": A, "l.v_proj": B}, "l.q_proj (int4-g32), l.k_proj (int4-g32), l.v_proj (int8-g32)"),
        ({"l.q_proj": A, "l.k_proj": A}, "l.q_proj (int4-g32), l.k_proj (int4-g32), l.v_proj (unquantized)"),
    ],
)
def test_unequal_schemes_are_refused_and_so_is_a_part_that_is_unquantized(chosen: dict[str, object], shown: str) -> None:
    with pytest.raises(ExportError) as error:
        check_fused(chosen, QKV)  # type: ignore[arg-type]
    assert str(error.value) == (
        f"vLLM fuses layers that have unequal schemes here: {shown}; search again with --for compressed-tensors, "
        "or use --allow-unfused if only other programs will load it"
    )


def test_of_many_groups_two_are_shown() -> None:
    names = [f"l{number}.{part}" for number in range(5) for part in ("gate_proj", "up_proj")]
    with pytest.raises(ExportError) as error:
        check_fused({name: A for name in names if "gate" in name}, names)
    assert "l1.gate_proj (int4-g32), l1.up_proj (unquantized) and 3 more groups; search again" in str(error.value)
    assert "l2." not in str(error.value)
