"""What every target promises, and what targets share."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpq.errors import OutputError
from mpq.export.abilities import ExportError
from mpq.export.base import Options, Written, package
from mpq.export.registry import TARGETS, target_named
from mpq.export.run import export
from mpq.export.source import open_source
from mpq.formats.registry import formats
from mpq.formats.scheme import Scheme
from tests.export.plans.making import plan
from tests.formats.test_scheme import schemes

TEXTS = [name for name in TARGETS if not target_named(name).needs_weights]
KEEPS = "huggingface"  # whose weights stay those of the artifact, in any scheme
BY_USE = ("executorch",)  # which takes a scheme by what a traced model uses its layer as
PLAN = {"model.layers.0.mlp.up_proj": "int4-g32", "model.layers.0.mlp.down_proj": "int8-g32"}


def allowed(scheme: Scheme, columns: int, name: str) -> bool:
    """Whether a target's abilities hold a scheme, by their definition."""
    can = target_named(name).abilities
    if scheme.is_float:
        return scheme.format in can.floats
    group = columns if scheme.group_size is None else min(scheme.group_size, columns)
    by_group = (can.group_sizes is None or group in can.group_sizes) and (can.ragged or columns % group == 0)
    fits = can.whole_row if group == columns and not by_group else by_group
    return scheme.is_integer and not scheme.small_scales and fits and scheme.bits in (can.bits if scheme.symmetric else can.asymmetric_bits)


@pytest.mark.parametrize("name", TARGETS)
class TestEveryTarget:
    def test_its_abilities_are_of_formats_that_exist(self, name: str) -> None:
        can = target_named(name).abilities
        known = formats()
        assert can.bits or name == KEEPS
        assert all(known[f"int{bits}"].bits == bits for bits in (*can.bits, *can.asymmetric_bits))
        assert set(can.asymmetric_bits) <= set(can.bits)
        assert set(can.floats) <= set(known)

    def test_a_suffix_that_is_wanted_is_the_end_of_the_name_that_it_gets(self, name: str) -> None:
        target = target_named(name)
        assert target.ending
        assert target.suffix is None or target.ending.endswith(target.suffix)
        assert target.places(Path("out") / f"m{target.ending}")[0] == Path("out") / f"m{target.ending}"

    def test_a_place_in_a_folder_that_is_not_there_or_of_another_kind_is_refused(self, name: str, tmp_path: Path) -> None:
        target = target_named(name)
        with pytest.raises(OutputError):
            target.check_place(tmp_path / "none" / f"m{target.ending}")
        target.check_place(tmp_path / f"m{target.ending}")
        if target.ending.startswith("."):
            (tmp_path / f"folder{target.ending}").mkdir()
            with pytest.raises(OutputError):
                target.check_place(tmp_path / f"folder{target.ending}")

    def test_a_plan_is_enough_only_where_it_says_so(self, name: str, tmp_path: Path) -> None:
        path = plan(tmp_path, PLAN)
        if name in TEXTS:
            assert export(path, name).path.is_file()
            return
        with pytest.raises(ExportError) as error:
            export(path, name)
        reason = f"{path} is a plan, and this target needs the weights: run `mpq apply plan.yaml`, then export what it wrote"
        assert str(error.value) == reason
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in (*BY_USE, KEEPS)])
@settings(deadline=None, max_examples=60)
@given(scheme=schemes, rows=st.integers(1, 4), columns=st.integers(1, 300))
def test_the_closest_scheme_is_allowed_and_has_no_fewer_bits(name: str, scheme: Scheme, rows: int, columns: int) -> None:
    found = target_named(name).closest("layer", scheme, (rows, columns))
    assert found is None or allowed(found, columns, name)
    assert found is None or found.is_float or found.bits >= scheme.bits
    assert found is None or target_named(name).closest("layer", found, (rows, columns)) == found


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_written_twice_alike_and_its_source_left_as_it_was(name: str, tmp_path: Path) -> None:
    path = plan(tmp_path, PLAN)
    before = path.read_bytes()
    first = export(path, name, tmp_path / f"a{target_named(name).ending}")
    content = first.path.read_bytes()
    target_named(name).write(open_source(path), first.path, Options())
    assert (first.path.read_bytes(), path.read_bytes()) == (content, before)
    assert first.bytes == len(content)
    assert first.notes[-1].startswith("use: ")


def test_the_bytes_of_a_result_are_those_of_its_file_with_others_or_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "out" / "deep").mkdir(parents=True)
    for number, place in enumerate(("out/a", "out/deep/b", "beside"), start=1):
        (tmp_path / place).write_bytes(bytes(10**number))
    assert Written(tmp_path / "out").bytes == 110
    assert Written(tmp_path / "beside").bytes == 1000
    assert Written(tmp_path / "beside", others=(tmp_path / "out" / "a",)).bytes == 1010


def test_a_package_is_imported_or_its_extra_named() -> None:
    assert package("json.decoder", extra="x").JSONDecoder
    with pytest.raises(ExportError) as error:
        package("no_such_package.inner", extra="openvino")
    assert str(error.value) == "this target needs no_such_package: pip install 'mpq-torch[openvino]'"
