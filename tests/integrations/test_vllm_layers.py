import pytest

from mpq.errors import ModelError
from mpq.formats.scheme import parse_scheme
from mpq.integrations.vllm_layers import NamedLayers, check_load_format, fused, is_covered
from tests.small import schemes

QKV = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}
NAMES = ["a.q_proj", "a.k_proj", "a.v_proj"]


def layers(*texts: str) -> NamedLayers:
    return NamedLayers(dict(zip(NAMES, schemes(*texts), strict=False)))


@pytest.mark.parametrize(
    ("text", "covered"),
    [
        *((text, True) for text in ("int4", "int8", "int4-g32", "int8-g128")),
        *((text, False) for text in ("int3", "int4-asym-g32", "int4-g16", "nf4-g32", "fp16", "int4-g32-s8")),
    ],
)
def test_symmetric_integers_of_4_and_8_bits_are_covered(text: str, covered: bool) -> None:
    assert is_covered(parse_scheme(text)) is covered


def test_a_fused_layer_has_the_names_of_its_parts() -> None:
    assert fused("model.a.qkv_proj", QKV) == [f"model.{name}" for name in NAMES]
    assert fused("model.a.o_proj", QKV) == ["model.a.o_proj"]
    assert fused("qkv_proj", QKV) == ["q_proj", "k_proj", "v_proj"]


def test_fused_layers_with_one_scheme_keep_it() -> None:
    assert layers("int4-g32", "int4-g32", "int4-g32").packed_scheme(NAMES) == parse_scheme("int4-g32")


@pytest.mark.parametrize("texts", [("int3", "int5", "fp16"), ("int3", "int3"), ()])
def test_layers_without_any_kernel_are_not_packed_whatever_their_schemes(texts: tuple[str, ...]) -> None:
    assert layers(*texts).packed_scheme(NAMES) is None


def test_fused_layers_with_different_schemes_are_refused() -> None:
    with pytest.raises(ModelError) as error:
        layers("int4", "int8").packed_scheme(NAMES)
    assert str(error.value) == (
        "vLLM fuses layers that have different schemes here: a.q_proj (int4), a.k_proj (int8), a.v_proj (unquantized); "
        "search again with --for compressed-tensors"
    )


def test_names_of_vllm_lead_to_those_of_the_artifact() -> None:
    made = layers("int4", "int8").renamed(lambda name: f"lm.{name}" if "q_proj" in name else None)
    assert dict(made.schemes) == {"lm.a.q_proj": parse_scheme("int4"), "a.k_proj": parse_scheme("int8")}
    assert [made.own_name(name) for name in ("lm.a.q_proj", "a.k_proj")] == ["a.q_proj", "a.k_proj"]
    assert made.renamed(lambda name: f"x.{name}").own_name("x.lm.a.q_proj") == "a.q_proj"


def test_another_load_format_is_refused() -> None:
    check_load_format("mpq")
    with pytest.raises(ModelError, match=r"not the load format auto: use --load-format mpq"):
        check_load_format("auto")
