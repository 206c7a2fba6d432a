"""An artifact written piece by piece holds what one written from memory holds."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import mpq
from mpq.apply import shard_writer as stream
from mpq.apply.shard_job import apply_shards
from mpq.apply.shard_plan import planned_shards
from mpq.check.measure_size import weigh
from mpq.data.dataset import Batch
from mpq.errors import ApplyError, FormatError, HeldError, MismatchError, ModelError, OutputError
from mpq.formats.scheme import parse_scheme
from mpq.models.sources.checkpoint_files import checkpoint_files
from mpq.records.artifact import read_artifact_header
from mpq.records.layer import Layer
from mpq.records.plan import Plan, plan_for, read_plan
from mpq.tensors.quantized import unpack_weight
from mpq.tensors.quantizers.registry import quantizer_named
from tests.cli.typed import done, refused
from tests.export.artifacts import by_name, make, save_llama, tokens
from tests.small import REST

SCHEMES = ("int4-g32-s8", "ternary", "int3-asym-g16-s8", "nf4", "mxfp4", "fp16", "int5", "ec5")
SHAPES = ((100, 48), (97, 33), (41, 64), (1, 40), (64, 32), (8, 8), (130, 5), (60, 50))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces so small that each layer has several."""
    monkeypatch.setattr(stream, "_WEIGHTS", 1500)
    monkeypatch.setattr(stream, "_COPIED", 100)


def checkpoint(folder: Path) -> Path:
    """Two files of weights and a norm, of several dtypes."""
    folder.mkdir()
    torch.manual_seed(0)
    dtypes = (torch.float32, torch.bfloat16, torch.float16)
    weights = {f"l{n}.weight": torch.randn(shape).to(dtypes[n % 3]) for n, shape in enumerate(SHAPES)}
    save_file({k: v for k, v in weights.items() if k < "l4"} | {"norm": torch.randn(77)}, folder / "a.safetensors")
    save_file({k: v for k, v in weights.items() if k >= "l4"}, folder / "b.safetensors")
    return folder


def plan(quantizer: str = "rtn", **changes: tuple[int, int]) -> Plan:
    names = ("float32", "bfloat16", "float16")
    layers = [Layer(f"l{n}", (f"l{n}.weight",), changes.get(f"l{n}", shape), (0,), names[n % 3]) for n, shape in enumerate(SHAPES)]
    schemes = {layer.name: parse_scheme(text) for layer, text in zip(layers, SCHEMES, strict=True)}
    return plan_for(layers, schemes, model={"kind": "memory", "sha256": "0" * 64}, quantizer=quantizer, rest=REST)


@pytest.mark.parametrize("quantizer", ["rtn", "mse"])
def test_every_tensor_is_what_the_whole_matrix_gives_to_the_bit(tmp_path: Path, quantizer: str) -> None:
    from mpq.tensors.quantizers.registry import quantizer_named

    source = checkpoint(tmp_path / "model")
    done = apply_shards(source, plan(quantizer), tmp_path / "small", workers=2)
    found = {name: tensor for file in done.files for name, tensor in load_file(file).items()}
    before = load_file(source / "a.safetensors") | load_file(source / "b.safetensors")
    assert torch.equal(found.pop("norm"), before["norm"])
    for name, scheme in plan().layers.items():
        expected = quantizer_named(quantizer).quantize(before[f"{name}.weight"].float(), scheme).pack()
        for part, tensor in expected.items():
            assert torch.equal(found.pop(f"{name}.{part}"), tensor), (name, part)
    assert found == {}


def test_the_size_of_every_file_is_predicted(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model")
    shards = planned_shards(source, checkpoint_files(source), plan(), tmp_path / "small")
    done = apply_shards(source, plan(), tmp_path / "small")
    assert [shard.bytes for shard in shards] == [file.stat().st_size for file in done.files]
    assert done.file_bytes == sum(shard.bytes for shard in shards)
    index = json.loads(done.index.read_text())
    assert index["metadata"]["total_size"] == done.file_bytes
    assert index["weight_map"]["norm"] == "model-00001-of-00002.mpq.safetensors"


def test_unquantized_tensors_are_stored_smaller(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model")
    wanted = replace(plan(), rest=replace(REST, dtype="bf16"))
    done = apply_shards(source, wanted, tmp_path / "small", workers=2)
    found = {name: tensor for file in done.files for name, tensor in load_file(file).items()}
    assert torch.equal(found["norm"], load_file(source / "a.safetensors")["norm"].bfloat16())
    shards = planned_shards(source, checkpoint_files(source), wanted, tmp_path / "small")
    assert [shard.bytes for shard in shards] == [file.stat().st_size for file in done.files]
    assert [read_artifact_header(file).rest_bytes for file in done.files] == [4 * 77, 0]


def test_a_file_without_layers_weighs_its_tensors(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model")
    save_file({"embeddings": torch.randn(11, 7)}, source / "c.safetensors")
    done = apply_shards(source, plan(), tmp_path / "small", workers=1)
    layers = sum((4, 2, 2)[n % 3] * rows * columns for n, (rows, columns) in enumerate(SHAPES))
    assert weigh(done.index).loaded["dense"] == layers + 4 * (77 + 11 * 7)


def test_files_that_are_there_are_kept_and_others_made_again(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model")
    done = apply_shards(source, plan(), tmp_path / "small")
    contents = [file.read_bytes() for file in done.files]
    kept = done.files[0].stat().st_mtime_ns
    done.files[1].write_bytes(contents[1][:-1])
    again = apply_shards(source, plan(), tmp_path / "small")
    assert again.kept == 1
    assert done.files[0].stat().st_mtime_ns == kept
    assert [file.read_bytes() for file in done.files] == contents
    assert not list((tmp_path / "small").glob(".*"))


def flipped(path: Path) -> bytes:
    """Change the last byte of a file: same size, same header."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    return content


def stopped(source: Path, wanted: Plan, folder: Path, *, after: int) -> None:
    """Apply until so many files are finished."""

    def stop(done: int, _: int, __: str) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply_shards(source, wanted, folder, on_progress=stop)


@pytest.mark.parametrize("finished", [True, False])
def test_a_file_of_the_right_size_and_header_with_other_contents_is_made_again(tmp_path: Path, finished: bool) -> None:
    source, first = checkpoint(tmp_path / "model"), tmp_path / "small" / "model-00001-of-00002.mpq.safetensors"
    if finished:
        apply_shards(source, plan(), tmp_path / "small")
    else:
        stopped(source, plan(), tmp_path / "small", after=1)
    content = flipped(first)
    assert apply_shards(source, plan(), tmp_path / "small").kept == int(finished)
    assert first.read_bytes() == content


def test_an_interrupted_run_keeps_what_it_finished_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model")
    stopped(source, plan(), tmp_path / "small", after=1)
    assert not list((tmp_path / "small").glob("*.index.json"))
    again, whole = apply_shards(source, plan(), tmp_path / "small"), apply_shards(source, plan(), tmp_path / "whole")
    assert (again.kept, whole.kept) == (1, 0)
    assert {file.name: file.read_bytes() for file in (tmp_path / "small").iterdir()} == {
        file.name: file.read_bytes() for file in (tmp_path / "whole").iterdir()
    }


def test_nothing_of_another_checkpoint_of_the_same_shapes_is_kept(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model")
    stopped(source, plan(), tmp_path / "small", after=1)
    flipped(source / "a.safetensors")
    assert apply_shards(source, plan(), tmp_path / "small").kept == 0


def test_no_index_names_a_mixture_of_two_plans(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model")
    apply_shards(source, plan(), tmp_path / "small")
    stopped(source, plan("mse"), tmp_path / "small", after=1)
    assert not list((tmp_path / "small").glob("*.index.json"))
    assert apply_shards(source, plan("mse"), tmp_path / "small").kept == 1


def test_a_checkpoint_that_changes_while_it_is_read_is_refused_and_its_file_not_kept(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model")

    def change(done: int, _: int, __: str) -> None:
        if done == 1:
            (source / "b.safetensors").touch()

    with pytest.raises(MismatchError, match="changed while it was read: run the command again"):
        apply_shards(source, plan(), tmp_path / "small", on_progress=change)
    assert apply_shards(source, plan(), tmp_path / "small").kept == 1


def test_two_runs_in_one_folder_are_one_and_a_refusal(tmp_path: Path) -> None:
    source, refusals = checkpoint(tmp_path / "model"), list[str]()

    def second(done: int, _: int, __: str) -> None:
        if done == 1:
            with pytest.raises(HeldError) as error:
                apply_shards(source, plan("mse"), tmp_path / "small")
            refusals.append(str(error.value))

    apply_shards(source, plan(), tmp_path / "small", on_progress=second)
    assert len(refusals) == 1
    assert refusals[0].startswith("another `mpq apply --shards` is writing ")


def test_a_second_run_of_the_same_plan_helps_and_the_bytes_are_those_of_one(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model")
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: apply_shards(source, plan(), tmp_path / "shared"), range(3)))
    whole = apply_shards(source, plan(), tmp_path / "whole")
    assert {done.index for done in found} == {tmp_path / "shared" / whole.index.name}
    assert {file.name: file.read_bytes() for file in (tmp_path / "shared").iterdir()} == {
        file.name: file.read_bytes() for file in (tmp_path / "whole").iterdir()
    }


def test_an_input_is_not_written_over(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model")
    for old, new in (("a", "model-00001-of-00002.mpq"), ("b", "model-00002-of-00002.mpq")):
        (source / f"{old}.safetensors").rename(source / f"{new}.safetensors")
    with pytest.raises(OutputError, match=r"it is an input of this command"):
        apply_shards(source, plan(), source)
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "model-00001-of-00002.mpq.safetensors").symlink_to("elsewhere")
    with pytest.raises(OutputError, match=r"it is a link to elsewhere; name that file itself"):
        apply_shards(source, plan(), tmp_path / "small")


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model")
    with pytest.raises(ApplyError, match="quantizer 'gptq' needs the inputs of each layer and therefore the whole model in memory"):
        apply_shards(source, plan("gptq"), tmp_path / "small")
    with pytest.raises(MismatchError, match=r"'l1' is 96x33 in the plan and 97x33 in "):
        apply_shards(source, plan(l1=(96, 33)), tmp_path / "small")
    (source / "b.safetensors").unlink()
    with pytest.raises(ApplyError, match=r"the plan names 'l4', which no file of .* contains under this name"):
        apply_shards(source, plan(), tmp_path / "small")
    (source / "a.safetensors").write_bytes(b"12345678")
    with pytest.raises(ModelError, match=r"a.safetensors cannot be read as a .safetensors file"):
        apply_shards(source, plan(), tmp_path / "small")
    with pytest.raises(FormatError, match="holds 0 indexes of artifacts"):
        mpq.load(tmp_path / "small")


@pytest.mark.parametrize("text", ["int4-g8", "int3-asym-g16-s8", "fp16", "ec5"])
def test_a_common_row_is_written_once(tmp_path: Path, text: str) -> None:
    weight = torch.randn(300, 24, generator=torch.Generator().manual_seed(0))
    weight[:250] = weight[0]
    (tmp_path / "model").mkdir()
    save_file({"t.weight": weight}, tmp_path / "model" / "a.safetensors")
    layer = Layer("t", ("t.weight",), (300, 24), (0,), "float32", alike=250)

    def wanted(layer: Layer) -> Plan:
        model = {"kind": "memory", "sha256": "0" * 64}
        return plan_for([layer], {"t": parse_scheme(text)}, model=model, quantizer="rtn", rest=REST)

    apply_shards(tmp_path / "model", wanted(layer), tmp_path / "small")
    file = next((tmp_path / "small").glob("*.safetensors"))
    parts = {name.removeprefix("t."): tensor for name, tensor in load_file(file).items()}
    stored = quantizer_named("rtn").quantize(torch.cat([weight[250:], weight[:1]]), parse_scheme(text)).dequantize()
    found = unpack_weight(parts, parse_scheme(text), layer.matrix).dequantize()
    assert torch.equal(found, torch.cat([stored[-1:].expand(250, -1), stored[:-1]]))
    with pytest.raises(ApplyError, match=r"^'t' has not the 251 rows alike that the plan says: analyze the model again$"):
        apply_shards(tmp_path / "model", wanted(replace(layer, alike=251)), tmp_path / "other")


@pytest.mark.parametrize("tied", [True, False])
def test_a_hugging_face_checkpoint_loads_from_its_shards_as_from_one_file(tmp_path: Path, tied: bool) -> None:
    pytest.importorskip("transformers")
    source = save_llama(tmp_path / "model", tie_word_embeddings=tied)
    batch = Batch((), {"input_ids": tokens()})
    text, whole = make(source, batch, by_name({"v_proj": "int8"}, "int4-g8"), tmp_path)
    done = apply_shards(source, read_plan(text), tmp_path / "small")
    expected = mpq.load(whole).state_dict()
    for found in (mpq.load(done.index), mpq.load(tmp_path / "small")):
        assert all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in expected.items())
    with torch.no_grad():
        dense, packed = (mpq.load(done.index, packed=flag)(input_ids=tokens()).logits for flag in (False, True))
    assert torch.allclose(dense, packed, rtol=1e-4, atol=1e-4)


def test_commands_take_the_index_and_the_folder_like_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    save_llama(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "model", Batch((), {"input_ids": tokens()}), by_name({"v_proj": "int8"}, "int4-g8"), tmp_path)
    written = apply_shards(tmp_path / "model", tmp_path / "plan.yaml", tmp_path / "small")
    torch.save({"input_ids": tokens()}, "data.pt")
    for path in ("small", "small/model.mpq.safetensors.index.json"):
        assert f"{written.file_bytes:,} bytes; " in done(f"show {path}").out
        assert "int8" in done(f"show {path} --kernels").out
        assert "kl_divergence" in done(f"eval {path} --data data.pt").out
        size = done(f"check {path} --budget 1MB --scope file").out
        assert f"{written.file_bytes:,} bytes" in size
    assert json.loads(done("bench small --batch-sizes 1 --tokens 2 --json").out)["file_bytes"] == written.file_bytes
    assert weigh(Path("small")).kind == "artifact"
    Path("small", "model.mpq.safetensors.index.json").unlink()
    assert refused("show small", 3) == "small is a folder: name a sensitivity file, a plan or an artifact"


def test_another_checkpoint_than_the_plans_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    source = save_llama(tmp_path / "model")
    text, _ = make(source, Batch((), {"input_ids": tokens()}), by_name({}, "int4-g8"), tmp_path)
    (source / "config.json").write_text((source / "config.json").read_text() + "\n")
    with pytest.raises(MismatchError, match="the plan was made for a model with sha256"):
        apply_shards(source, read_plan(text), tmp_path / "small")
    assert not list((tmp_path / "small").iterdir())
