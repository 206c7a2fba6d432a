import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mpq.cli.main import app
from mpq.export.registry import TARGETS, target_named
from mpq.formats.scheme import parse_scheme
from mpq.records.plan import plan_for, write_plan
from tests.cli.typed import refused
from tests.small import REST, linear


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    layers = [linear("a", 8, 64), linear("b", 8, 64)]
    chosen = {"a": parse_scheme("int4"), "b": parse_scheme("int5")}
    made = plan_for(layers, chosen, model={"path": "m", "sha256": "a", "kind": "hf"}, quantizer="rtn", rest=REST)
    write_plan(made, tmp_path / "plan.yaml")
    return tmp_path / "plan.yaml"


def test_a_replacement_is_printed_layer_by_layer(plan: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(plan), "--to", "auto-round", "--nearest"])
    assert done.exit_code == 0
    assert [line.split() for line in done.stdout.splitlines() if line.startswith("b ")] == [["b", "int5", "int8"]]


def test_scales_of_8_bits_are_refused_or_become_fp16(tmp_path: Path) -> None:
    layers, chosen = [linear("a", 8, 64)], {"a": parse_scheme("int4-g32-s8")}
    made = plan_for(layers, chosen, model={"path": "m", "sha256": "a", "kind": "hf"}, quantizer="rtn", rest=REST)
    write_plan(made, tmp_path / "plan.yaml")
    typed = ["export", str(tmp_path / "plan.yaml"), "--to", "auto-round"]
    refused = CliRunner().invoke(app, typed)
    assert (refused.exit_code, refused.stderr) == (
        3,
        "mpq: auto-round cannot represent a (int4-g32-s8): --nearest uses the next larger scheme for each\n",
    )
    done = CliRunner().invoke(app, [*typed, "--nearest", "--json"])
    assert json.loads(done.stdout)["replaced"] == {"a": ["int4-g32-s8", "int4-g32"]}


def test_json_tells_the_same(plan: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(plan), "--to", "auto-round", "--nearest", "--json"])
    found = json.loads(done.stdout)
    assert found["replaced"] == {"b": ["int5", "int8"]}
    assert found["bytes"] == Path(found["path"]).stat().st_size


def test_errors_are_one_line_and_an_exit_code(plan: Path) -> None:
    missing = CliRunner().invoke(app, ["export", str(plan), "--to", "auto-round"])
    assert (missing.exit_code, missing.stderr) == (
        3,
        "mpq: auto-round cannot represent b (int5): --nearest uses the next larger scheme for each\n",
    )
    unknown = CliRunner().invoke(app, ["export", str(plan), "--to", "elsewhere"])
    assert unknown.exit_code == 2
    with_card = CliRunner().invoke(app, ["export", str(plan), "--to", "elsewhere", "--base-model", "org/name"])
    assert (with_card.exit_code, with_card.stderr) == (2, unknown.stderr)
    assert unknown.stderr == f"mpq: 'elsewhere' is not a target: use one of {', '.join(TARGETS)}\n"


@pytest.mark.parametrize("name", list(TARGETS))
def test_every_target_is_found_by_its_name(name: str) -> None:
    target = target_named(name)
    assert target.ending
    assert target.abilities.bits or name == "huggingface"  # which keeps the artifact as it is


def test_a_missing_package_names_the_extra(plan: Path) -> None:
    code = (
        "import sys; sys.modules['onnxscript'] = None\n"
        "from mpq.export.registry import target_named\n"
        "from mpq.export.base import ExportError, Options\n"
        "try: target_named('onnx').check(None, Options())\n"
        "except ExportError as error: print(error)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == "this target needs onnxscript: pip install 'mpq-torch[onnx]'\n"


def test_a_file_that_is_not_there_is_named_with_what_it_may_be(fresh: Path) -> None:
    reason = "a.mpq.safetensors does not exist: run `mpq apply` first, or name an artifact or a plan"
    assert refused("export a.mpq.safetensors --to onnx", 3) == reason
    assert not (fresh / "model.onnx").exists()
