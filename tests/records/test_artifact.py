import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from mpq.errors import ApplyError, FormatError
from mpq.records.artifact import ArtifactHeader, is_artifact, read_artifact_header, rest_of
from mpq.records.artifact_layout import TensorEntry, entry, header, header_length, layer_entries, layer_header_bytes
from mpq.records.layer import Layer
from tests.small import linear, schemes

LAYERS = (linear("a", 4, 32), Layer("é", ("é.weight", "tied.weight"), (3, 8, 2), (1,), "bfloat16"))
FACTS = ArtifactHeader(
    {"sha256": "a" * 64, "kind": "hf"},
    "rtn",
    LAYERS,
    dict(zip(("a", "é"), schemes("int4-g16", "int8-asym"), strict=True)),
    {"tied.weight": "é.weight"},
    {"hidden": 4},
)
AGAIN = "write it again with `mpq apply`"


def written(path: Path, metadata: Any) -> Path:
    entries = [part for layer in LAYERS for part in layer_entries(layer.name, layer.matrix, FACTS.schemes[layer.name])]
    path.write_bytes(header(entries, metadata) + bytes(sum(part.stored.bytes for part in entries)))
    return path


def framed(path: Path, raw: bytes) -> Path:
    path.write_bytes(len(raw).to_bytes(8, "little") + raw)
    return path


def refused(path: Path) -> str:
    with pytest.raises(FormatError) as error:
        read_artifact_header(path)
    return str(error.value).removeprefix(str(path))


def test_a_header_is_read_back_with_the_facts_that_loading_needs(tmp_path: Path) -> None:
    found = read_artifact_header(written(tmp_path / "a", FACTS.to_metadata()))
    assert (found.model, found.quantizer, found.schemes, found.aliases, found.config) == (
        FACTS.model,
        FACTS.quantizer,
        FACTS.schemes,
        FACTS.aliases,
        FACTS.config,
    )
    assert [(x.name, x.parameters, x.shape, x.axes, x.dtype) for x in found.layers] == [
        (x.name, x.parameters, x.shape, x.axes, x.dtype) for x in LAYERS
    ]


def test_the_rest_and_the_layers_make_up_the_header() -> None:
    kept = [entry("bias", "F32", (7,)), entry("mpq.program", "U8", (11,))]
    rest = rest_of(
        LAYERS, kept, model=FACTS.model, quantizer="rtn", aliases=FACTS.aliases, config=FACTS.config, weights=7, original_bytes=28
    )
    entries = list(kept)
    own = 0
    for layer in LAYERS:
        entries += layer_entries(layer.name, layer.matrix, FACTS.schemes[layer.name])
        own += layer_header_bytes(layer.name, layer.matrix, FACTS.schemes[layer.name])
    assert (rest.data_bytes, rest.weights, rest.original_bytes) == (28 + 11, 7, 28)
    assert len(header(entries, FACTS.to_metadata())) == 8 + -(-(rest.header_bytes + own) // 8) * 8


STEPS = ("sequential", "bias_correction", "tuning")


@pytest.mark.parametrize("recovery", [kept for count in range(4) for kept in itertools.combinations(STEPS, count)])
@pytest.mark.parametrize("stopped", [(), ("sequential",), ("tuning",)])
def test_the_steps_of_recovery_take_no_byte(tmp_path: Path, recovery: tuple[str, ...], stopped: tuple[str, ...]) -> None:
    """Two layers and a bias: as few tensors as an artifact can have that all steps change."""
    entries = [entry("bias", "F32", (7,)), *(part for layer in LAYERS for part in _parts(layer))]
    taken = replace(FACTS, recovery=recovery, stopped=stopped)
    first = taken.first_bytes(entries)
    assert len(first) == len(FACTS.first_bytes(entries)) == len(header(entries, FACTS.to_metadata()))
    path = tmp_path / "a"
    path.write_bytes(first + bytes(sum(item.stored.bytes for item in entries)))
    found = read_artifact_header(path)
    assert (found.recovery, found.stopped) == (recovery, stopped)
    with safe_open(path, framework="np") as file:  # any reader accepts it
        assert set(file.keys()) == {item.name for item in entries}


def test_names_that_do_not_fit_are_refused() -> None:
    entries = [entry("bias", "F32", (7,))]
    taken = replace(FACTS, recovery=("a step with a very long name",) * 3)
    with pytest.raises(ApplyError, match=r"^the artifact's header has \d+ bytes, but its contents need \d+: apply with --no-recovery"):
        taken.first_bytes(entries)


def test_the_field_is_as_long_as_the_number_that_stood_there_before() -> None:
    """So that plans and analyses of earlier versions keep the sizes that they predict."""
    before = dict(FACTS.to_metadata())
    assert before.pop("recovery") == []
    now, then = (header_length([], metadata) for metadata in (FACTS.to_metadata(), {**before, "corrected": 0}))
    assert now == then


@pytest.mark.parametrize(
    ("digit", "expected"),
    [
        (0, ()),
        (1, ("bias_correction",)),
        (2, ("tuning",)),
        (3, ("bias_correction", "tuning")),
        (4, ("sequential",)),
        (5, ("sequential", "bias_correction")),
        (6, ("sequential", "tuning")),
        (7, ("sequential", "bias_correction", "tuning")),
    ],
)
def test_the_number_of_earlier_versions_is_read(tmp_path: Path, digit: int, expected: tuple[str, ...]) -> None:
    before = dict(FACTS.to_metadata())
    del before["recovery"]
    found = read_artifact_header(written(tmp_path / "a", {**before, "corrected": digit}))
    assert (found.recovery, found.stopped) == (expected, ())
    assert read_artifact_header(written(tmp_path / "b", before)).recovery == ()  # before there was such a number


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"recovery": "tuning"}, "recovery is 'tuning': give a list"),
        ({"recovery": [1]}, "recovery[0] is 1: give text"),
        ({"stopped": {"tuning": 1}}, "stopped is {'tuning': 1}: give a list"),
        ({"stopped": None}, "stopped is empty: give a list"),
    ],
)
def test_steps_that_are_no_list_of_names_are_damage(tmp_path: Path, damage: dict[str, Any], reason: str) -> None:
    assert refused(written(tmp_path / "a", {**FACTS.to_metadata(), **damage})) == f", header: {reason}; run `mpq apply` again"


def _parts(layer: Layer) -> list[TensorEntry]:
    return layer_entries(layer.name, layer.matrix, FACTS.schemes[layer.name])


def test_only_files_of_mpq_are_artifacts(tmp_path: Path) -> None:
    assert is_artifact(written(tmp_path / "a", FACTS.to_metadata()))
    for number, raw in enumerate(
        (b"{}", b'{"__metadata__":{"format":"pt"}}', b"[]", b"{", b'{"__metadata__":null}', b'{"__metadata__":3}')
    ):
        assert not is_artifact(framed(tmp_path / str(number), raw))
    (tmp_path / "short").write_bytes(b"PK")
    assert not is_artifact(tmp_path / "short")
    assert not is_artifact(tmp_path / "missing")
    assert not is_artifact(tmp_path)


@pytest.mark.parametrize("raw", [b"{}", b'{"__metadata__":{"format":"pt"}}', b'{"__metadata__":null}', b'{"__metadata__":[]}'])
def test_a_foreign_safetensors_file_is_refused(tmp_path: Path, raw: bytes) -> None:
    expected = " is a safetensors file, but not one that mpq wrote: create one with `mpq apply`"
    assert refused(framed(tmp_path / "a", raw)) == expected


def test_what_is_no_safetensors_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"PK")
    assert refused(tmp_path / "short") == f" is not a safetensors file, or is cut off: {AGAIN}"
    whole = written(tmp_path / "a", FACTS.to_metadata())
    whole.write_bytes(whole.read_bytes()[:100])
    assert refused(whole) == f" is not a safetensors file, or is cut off: {AGAIN}"
    assert refused(framed(tmp_path / "list", b"[1]")) == f" is not a safetensors file, or is cut off: {AGAIN}"
    assert refused(framed(tmp_path / "deep", b'{"a":' * 100_000)) == (
        ", header is not JSON that mpq reads (nested more than 32 levels deep): run `mpq apply` again"
    )


def test_a_header_that_claims_more_than_the_file_holds_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes((900_000_000).to_bytes(8, "little") + b"{}")
    assert refused(tmp_path / "a") == f" is not a safetensors file, or is cut off: {AGAIN}"
    with (tmp_path / "b").open("wb") as file:
        file.write((900_000_000).to_bytes(8, "little") + b"{}")
        file.truncate(1_000_000_000)  # sparse: the file is as large as its header claims
    assert refused(tmp_path / "b") == f" is not a safetensors file, or is cut off: {AGAIN}"


def test_a_missing_artifact_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "a") == f"cannot read {tmp_path / 'a'}: No such file or directory; name an artifact, as `mpq apply` writes it"


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a", {**FACTS.to_metadata(), "version": 2})
    assert refused(path) == " is an artifact of version 2, this mpq reads up to 1: upgrade mpq"


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in FACTS.to_metadata().items() if name != key}


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        (without("layers"), "it lacks the key 'layers'"),
        (without("aliases"), "it lacks the key 'aliases'"),
        ({**FACTS.to_metadata(), "layers": {"a": {"scheme": "int4"}}}, "layers.a lacks the key 'parameters'"),
        ({**FACTS.to_metadata(), "layers": []}, "layers is []: give a mapping"),
        ({**FACTS.to_metadata(), "corrected": 8}, "corrected is 8: give a whole number of at most 7"),
        ({**FACTS.to_metadata(), "quantizer": ["\x1b[31m" * 1000]}, "quantizer is ['\\x1b[31m\\x1b[31m\\x1b[31m\\x1b["),
        ([], "it is []: give a mapping"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, metadata: Any, reason: str) -> None:
    found = refused(written(tmp_path / "a", metadata))
    assert found.startswith(f", header: {reason}")
    assert found.endswith("; run `mpq apply` again")
    assert len(found) < 200


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"shape": [1, 2, 3], "axes": [3]}, "the axes of layer 'é' are [3] of 3"),
        ({"shape": [3, 8, 2], "axes": [1, 1]}, "the axes of layer 'é' are [1, 1] of 3"),
        ({"shape": [3, 8, 0]}, "layers.é.shape[2] is 0: give a whole number of 1 or more"),
        ({"shape": [10**30, 10**30]}, "the number 1000000000000000000000000000000 takes more than 64 bits"),
        ({"shape": [10**15, 10**15]}, "with layer 'é' the layers have more than 281,474,976,710,656 weights"),
        ({"shape": [3, 8, 3]}, "tensor 'é.codes' is U8 [48], its scheme needs U8 [72]"),
        ({"scheme": "int4"}, "tensor 'é.codes' is U8 [48], its scheme needs U8 [24]"),
        ({"scheme": "fp16"}, "tensor 'é.values' is not in the file, its scheme needs F16 [8, 6]"),
    ],
)
def test_a_layer_that_its_tensors_do_not_bear_out_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    metadata = FACTS.to_metadata()
    metadata["layers"]["é"] |= changes
    found = refused(written(tmp_path / "a", metadata))
    assert found.startswith(", header")
    assert reason in found


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"shape":[4,2]', b'"shape":[4,3]', "tensor 'a.scales', F16 [4, 3], is at [0, 16]"),
        (b'"dtype":"F16","shape":[4,2]', b'"dtype":"I64","shape":[4,2]', "tensor 'a.scales', I64 [4, 2], is at [0, 16]"),
        (b"[0,16]", b"[8,16]", "tensor 'a.scales', F16 [4, 2], is at [8, 16]"),
        (b'"U8"', b"null", "dtype is empty: give text"),
    ],
)
def test_tensors_that_overlap_or_have_another_size_are_refused(tmp_path: Path, old: bytes, new: bytes, reason: str) -> None:
    path = written(tmp_path / "a", FACTS.to_metadata())
    whole = path.read_bytes()
    assert old in whole
    path.write_bytes(whole.replace(old, new.ljust(len(old)), 1))
    assert reason in refused(path)


def test_a_scheme_of_another_mpq_is_refused(tmp_path: Path) -> None:
    metadata = json.loads(json.dumps(FACTS.to_metadata()).replace("int4-g16", "nf9-g16"))
    assert refused(written(tmp_path / "a", metadata)).startswith(", header: unknown scheme 'nf9'")
