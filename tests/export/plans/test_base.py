from pathlib import Path

import pytest

from mpq.export.abilities import ExportError
from mpq.export.plans.base import group_size, is_embedding, kept, most_common, quantized, remarks
from mpq.export.run import export
from mpq.export.source import Source, open_source
from mpq.formats.scheme import Scheme, parse_scheme
from tests.export.plans.making import SCHEMES, plan


def source(folder: Path) -> Source:
    return open_source(plan(folder, SCHEMES))


def test_a_plan_without_linear_layers_is_refused(tmp_path: Path) -> None:
    path = plan(tmp_path, {"embed_tokens": "int4", "head": "fp16"})
    with pytest.raises(ExportError, match="has no layer that this target quantizes"):
        export(path, "modelopt")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.embed_tokens", True),
        ("embeddings.word_embeddings", True),
        ("transformer.wte", True),
        ("wpe", True),
        ("embed.proj", False),
        ("wte.proj", False),
        ("model.layers.0.mlp.up_proj", False),
        ("newte", False),
    ],
)
def test_an_embedding_is_known_by_the_last_part_of_its_name(name: str, expected: bool) -> None:
    assert is_embedding(name) is expected


def test_layers_are_quantized_kept_or_embeddings(tmp_path: Path) -> None:
    given = source(tmp_path)
    assert list(quantized(given)) == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.self_attn.v_proj",
        "model.layers.1.mlp.down_proj",
    ]
    assert kept(given) == ["model.layers.0.mlp.down_proj"]


def test_the_most_common_scheme_is_that_of_the_most_weights_not_layers() -> None:
    schemes = {"a": Scheme("int4"), "b": Scheme("int4"), "c": Scheme("int8")}
    assert most_common(schemes, {"a": (2, 8), "b": (2, 8), "c": (4, 9)}) == Scheme("int8")
    assert most_common(schemes, {"a": (2, 8), "b": (2, 8), "c": (4, 7)}) == Scheme("int4")


def test_a_whole_row_is_a_group_of_minus_one() -> None:
    assert [group_size(parse_scheme(text)) for text in ("int4", "int4-g32")] == [-1, 32]


def test_what_is_not_written_is_told(tmp_path: Path) -> None:
    assert remarks(source(tmp_path)) == [
        "not quantized by this target: model.embed_tokens (int4-g32)",
        "weights that the plan does not name may take the program's default; export the artifact instead to exclude them by name",
    ]
