import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpq.records.fused_layers import FAMILIES, fused_groups


def groups(*names: str, complete: bool = False) -> list[tuple[str, ...]]:
    return list(fused_groups(names, complete=complete))


def test_members_beside_each_other_are_a_group_in_the_order_of_their_family() -> None:
    names = ("h.0.v_proj", "h.0.q_proj", "h.0.o_proj", "h.0.k_proj", "h.1.q_proj", "h.1.k_proj", "h.0.mlp.up_proj", "h.0.mlp.gate_proj")
    assert groups(*names) == [
        ("h.0.q_proj", "h.0.k_proj", "h.0.v_proj"),
        ("h.1.q_proj", "h.1.k_proj"),
        ("h.0.mlp.gate_proj", "h.0.mlp.up_proj"),
    ]


def test_a_complete_group_has_all_members() -> None:
    assert groups("q", "k", complete=True) == []
    assert groups("q", "k", "v", complete=True) == [("q", "k", "v")]


@pytest.mark.parametrize("names", [(), ("a.q_proj",), ("a.q_proj", "b.k_proj"), ("a.q_proj", "a.key"), ("a.wq_", "a.xwk")])
def test_one_alone_or_of_another_family_or_elsewhere_is_no_group(names: tuple[str, ...]) -> None:
    assert groups(*names) == []


@given(
    st.lists(st.tuples(st.sampled_from(["", "a.", "b.c."]), st.sampled_from([leaf for family in FAMILIES for leaf in family])), unique=True)
)
def test_every_layer_is_in_one_group_at_most(parts: list[tuple[str, str]]) -> None:
    names = [parent + leaf for parent, leaf in parts]
    found = [name for group in fused_groups(names) for name in group]
    assert len(set(found)) == len(found)
    assert set(found) <= set(names)
