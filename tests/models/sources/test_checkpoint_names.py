"""Ways to read the names of a checkpoint as those of a module."""

import pytest

from mpq.models.sources.checkpoint_names import Naming, Namings, bare

TENSORS, MODULES = ["a.weight", "a.bias", "b.c.weight"], ["", "a", "b", "b.c"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.weight", "a.weight"),
        ("module.a.weight", "a.weight"),
        ("_orig_mod.module.a._fsdp_wrapped_module.weight", "a.weight"),
        ("a._checkpoint_wrapped_module._fpw_module.weight", "a.weight"),
        ("module", "module"),
        ("a.module", "a.module"),
    ],
)
def test_parts_of_wrappers_are_dropped_but_never_the_last(name: str, expected: str) -> None:
    assert bare(name) == expected


def test_names_of_the_module_are_first_read_as_they_are() -> None:
    first, *_ = Namings(TENSORS, MODULES).of(TENSORS)
    assert first == Naming("", {name: name for name in TENSORS})


def test_each_way_is_proposed_once_and_reads_every_name_as_another() -> None:
    namings = list(Namings(TENSORS, MODULES).of(["module.a.weight", "a.weight", "other.b.c.weight"]))
    texts = [tuple(naming.names.items()) for naming in namings]
    assert len(set(texts)) == len(texts)
    assert all(len(set(naming.names.values())) == len(naming.names) for naming in namings)


def test_a_prefix_is_found_by_the_names_below_it() -> None:
    found = {
        naming.prefix: naming.names for naming in Namings(TENSORS, MODULES).of(["net.enc.a.weight", "net.enc.b.c.weight", "head.weight"])
    }
    assert found["net.enc"] == {"net.enc.a.weight": "a.weight", "net.enc.b.c.weight": "b.c.weight"}


def test_names_below_a_prefix_are_read_without_it_and_without_wrappers() -> None:
    names = ["ema.module.a.weight", "ema.b.c.weight", "emax.a.bias"]
    assert Namings(TENSORS, MODULES).below("ema", names) == Naming(
        "ema", {"ema.module.a.weight": "a.weight", "ema.b.c.weight": "b.c.weight"}
    )
    assert Namings(TENSORS, MODULES).below("none", names).names == {}


def test_a_module_inside_a_wrapper_has_its_own_names() -> None:
    namings = Namings(["module.a.weight", "module.a.bias"], ["", "module", "module.a"])
    assert namings.below("", ["a.weight", "_orig_mod.a.bias"]).names == {"a.weight": "module.a.weight", "_orig_mod.a.bias": "module.a.bias"}


def test_a_prefix_that_all_tensors_of_the_module_share_is_tried() -> None:
    namings = Namings(["net.a.weight", "net.a.bias"], ["", "net", "net.a"])
    assert Naming("", {"a.weight": "net.a.weight"}) in list(namings.of(["a.weight"]))


def test_a_name_that_the_module_lacks_goes_below_its_innermost_module() -> None:
    namings = Namings(TENSORS, MODULES)
    assert namings.below("", ["b.c.weight_g"]).names == {"b.c.weight_g": "b.c.weight_g"}
    wrapped = Namings(["b.module.weight"], ["", "b", "b.module"])
    assert wrapped.below("", ["b.weight_g"]).names == {"b.weight_g": "b.module.weight_g"}


def test_names_that_cannot_be_told_apart_are_not_proposed() -> None:
    assert [naming.names for naming in Namings(["a.weight"], ["", "a"]).of(["a.weight", "module.a.weight"]) if naming.prefix == ""] == [
        {"a.weight": "a.weight", "module.a.weight": "module.a.weight"}
    ]
