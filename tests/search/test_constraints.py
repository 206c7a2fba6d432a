import pytest

from mpq.errors import PatternError, UsageError
from mpq.formats.scheme import parse_scheme
from mpq.search.constraints import allowed, automatic_ties, choice_of, limited
from mpq.search.problem import Problem, build_groups
from tests.small import linear, random_table, table

PARTS = ("attn.q_proj", "attn.k_proj", "attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
NAMES = [f"model.layers.{n}.{part}" for n in (0, 1) for part in PARTS]


def test_what_runtimes_fuse_is_tied_block_by_block() -> None:
    found = automatic_ties([linear(name, 4, 64) for name in [*NAMES, "lm_head"]])
    assert ("model.layers.1.attn.q_proj", "model.layers.1.attn.k_proj", "model.layers.1.attn.v_proj") in found
    assert ("model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj") in found
    assert len(found) == 4


def test_a_family_that_is_not_whole_is_not_tied() -> None:
    assert automatic_ties([linear("a.q_proj", 4, 64), linear("a.k_proj", 4, 64)]) == ()


def test_experts_of_one_block_are_tied_by_their_role() -> None:
    names = [f"b.{block}.experts.{n}.{role}" for block in (0, 1) for n in range(3) for role in ("up", "down")]
    assert len(automatic_ties([linear(name, 4, 64) for name in names])) == 4


def two() -> Problem:
    figures = {"int4": 1.0, "int8": 0.5, "fp16": 0.1}
    return Problem(build_groups(table([linear("a.head", 4, 64), linear("b", 4, 64)], {"a.head": figures, "b": figures})), 10**6)


def test_least_bits_leave_only_options_with_as_many() -> None:
    first, second = limited(two().groups, {"*.head": 8})
    assert [str(option.schemes["a.head"]) for option in first.options] == ["int8", "fp16"]
    assert len(second.options) == 3


def test_least_bits_that_no_candidate_has_are_refused() -> None:
    with pytest.raises(UsageError) as error:
        limited(two().groups, {"b": 32})
    assert str(error.value) == "no candidate of b has the 32 bits that --min-bits requires"


def test_least_bits_of_an_unknown_layer_are_refused() -> None:
    with pytest.raises(PatternError):
        limited(two().groups, {"nothing": 8})


def test_a_plan_to_start_from_takes_the_same_or_the_next_larger_options_and_leaves_the_rest() -> None:
    problem = two()
    start = {"a.head": parse_scheme("int8"), "b": parse_scheme("int6")}
    assert problem.schemes(choice_of(problem, start, (0, 0))) == {"a.head": parse_scheme("int8"), "b": parse_scheme("int8")}
    first, second = choice_of(problem, {"b": parse_scheme("int6")}, (1, 0))
    assert first == 1
    assert problem.schemes((first, second))["b"] == parse_scheme("int8")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [(("8",), {"int8"}), (("4",), {"int4", "int4-g32"}), (("int4-g32", "fp16"), {"int4-g32", "fp16"}), (("int4",), {"int4", "int4-g32"})],
)
def test_candidates_by_pattern_leave_other_layers_alone(texts: tuple[str, ...], expected: set[str]) -> None:
    groups = build_groups(random_table(0, count=4))
    found = allowed(groups, {"blocks.0.*": texts})
    for before, after in zip(groups, found, strict=True):
        name = before.layers[0].name
        left = {str(option.schemes[name]) for option in after.options}
        assert left == expected if name.startswith("blocks.0.") else after == before


def test_candidates_that_were_not_measured_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"^--candidates leaves no scheme for blocks.0.q: nf4 was requested, but only int2, .* were measured$"
    ):
        allowed(build_groups(random_table(0, count=4)), {"blocks.0.q": ("nf4",)})
    with pytest.raises(PatternError, match="--candidates"):
        allowed(build_groups(random_table(0, count=4)), {"none": ("8",)})
