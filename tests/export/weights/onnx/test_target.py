from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mpq
from mpq.data.dataset import Batch
from mpq.demo import write_demo
from mpq.errors import TrustError
from mpq.export.abilities import ExportError
from mpq.export.base import Options
from mpq.export.run import export
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.models.inputs.load_data import load_data
from mpq.models.sources.load import load_model
from mpq.records.layer import Layer
from tests.export.artifacts import by_name, kl_divergence, make, save_llama, tokens

for name in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(name)
ALL = ("int8", "int4-g32", "int4-asym-g20", "int8-asym", "int4-g5", "bf16", "int4", "int8-g16", "fp16")


def in_turn(*texts: str) -> Callable[[Layer], Scheme]:
    """One scheme after another, so that every kind of layer meets several."""
    seen: list[str] = []

    def choose(layer: Layer) -> Scheme:
        seen.append(layer.name)
        return parse_scheme(texts[(len(seen) - 1) % len(texts)])

    return choose


def run(path: Path, inputs: Tensor, *, level: str = "1") -> Tensor:
    """The first output, computed by ONNX Runtime; at level 1 it keeps activations in float32."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", level)
    session: Any = onnxruntime.InferenceSession(path, options)
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0])


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Tensor]]:
    """An artifact and a batch of each demo model, under schemes of every kind."""
    made = {}
    for name in ("digits", "chars"):
        folder = tmp_path_factory.mktemp(name)
        write_demo(name, folder)
        loaded = load_model(folder / "model.pt2")
        batch = load_data(str(folder / "calibration.pt"), model=loaded, num_samples=4, batch_size=4).batches[0]
        _, artifact = make(folder / "model.pt2", batch, in_turn(*ALL), folder)
        export(artifact, "onnx")
        made[name] = (artifact, batch.tensors[0])
    return made


@pytest.mark.parametrize("name", ["digits", "chars"])
def test_a_demo_model_gives_the_logits_of_the_artifact(demos: dict[str, tuple[Path, Tensor]], name: str) -> None:
    artifact, inputs = demos[name]
    with torch.no_grad():
        reference = mpq.load(artifact)(inputs)
    found = run(artifact.with_name("model.onnx"), inputs)
    assert float((reference - found).abs().max()) < 1e-4 * float(reference.abs().max())
    assert abs(kl_divergence(reference, found)) < 1e-8


@pytest.mark.parametrize("name", ["digits", "chars"])
def test_the_batch_stays_dynamic(demos: dict[str, tuple[Path, Tensor]], name: str) -> None:
    artifact, inputs = demos[name]
    assert len(run(artifact.with_name("model.onnx"), inputs[:3])) == 3


def test_codes_and_scales_are_stored_as_small_as_in_the_artifact(demos: dict[str, tuple[Path, Tensor]]) -> None:
    import onnx

    artifact, _ = demos["chars"]
    model = onnx.load(artifact.with_name("model.onnx"))
    kinds = {tensor.name: onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in model.graph.initializer}
    assert {kind for name, kind in kinds.items() if name.endswith(".codes")} == {"INT4", "INT8", "UINT4", "UINT8"}
    assert {kind for name, kind in kinds.items() if name.endswith(".scales")} == {"FLOAT16"}
    assert not any(prop.key for node in model.graph.node for prop in node.metadata_props)
    assert artifact.with_name("model.onnx").stat().st_size < 1.3 * artifact.stat().st_size


def test_a_language_model_takes_any_batch_and_length(tmp_path: Path) -> None:
    model = save_llama(tmp_path / "llama", tie_word_embeddings=True, num_hidden_layers=1)
    _, artifact = make(
        model, Batch((), {"input_ids": tokens()}), by_name({"down": "int8-asym-g32", "v_proj": "fp16"}, "int4-g32"), tmp_path
    )
    done = export(artifact, "onnx")
    for inputs in (tokens(1, 5), tokens(3, 20)):
        with torch.no_grad():
            reference = mpq.load(artifact)(inputs).logits
        assert abs(kl_divergence(reference, run(done.path, inputs))) < 1e-8


@pytest.mark.parametrize("scheme", ["int8", "fp16", "bf16"])
def test_a_convolution_without_several_scales_per_row_is_stored_in_its_own_shape(tmp_path: Path, scheme: str) -> None:
    import onnx

    torch.manual_seed(0)
    module, inputs = nn.Conv2d(4, 6, 3).eval(), torch.randn(2, 4, 5, 5)
    torch.export.save(torch.export.export(module, (inputs,)), tmp_path / "model.pt2")
    _, artifact = make(tmp_path / "model.pt2", Batch((inputs,)), by_name({}, scheme), tmp_path)
    export(artifact, "onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert not {"Reshape", "Transpose"} & {node.op_type for node in graph.node}
    assert [list(stored.dims) for stored in graph.initializer if stored.name.endswith((".codes", ".values"))] == [[6, 4, 3, 3]]
    with torch.no_grad():
        expected = mpq.load(artifact)(inputs)
    torch.testing.assert_close(run(tmp_path / "model.onnx", inputs), expected, rtol=1e-5, atol=1e-6)


def test_a_grouped_transposed_convolution_gives_the_outputs_of_the_artifact(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, inputs = nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2).eval(), torch.randn(2, 4, 5, 5)
    torch.export.save(torch.export.export(module, (inputs,)), tmp_path / "model.pt2")
    _, artifact = make(tmp_path / "model.pt2", Batch((inputs,)), by_name({}, "int8"), tmp_path)
    export(artifact, "onnx")
    with torch.no_grad():
        expected = mpq.load(artifact)(inputs)
    assert not torch.equal(expected, module(inputs))
    torch.testing.assert_close(run(tmp_path / "model.onnx", inputs), expected, rtol=1e-5, atol=1e-6)


def test_odd_bits_need_nearest_and_then_cost_more_bytes_only(tmp_path: Path) -> None:
    write_demo("digits", tmp_path)
    loaded = load_model(tmp_path / "model.pt2")
    batch = load_data(str(tmp_path / "calibration.pt"), model=loaded, num_samples=4, batch_size=4).batches[0]
    _, artifact = make(tmp_path / "model.pt2", batch, in_turn("int3", "int5-g9", "int6-asym"), tmp_path)
    with pytest.raises(ExportError, match=r"^onnx cannot represent .* \(int3\), .*: --nearest uses the next larger scheme for each$"):
        export(artifact, "onnx")
    done = export(artifact, "onnx", nearest=True)
    assert {str(new) for _, new in done.replaced.values()} == {"int4", "int8-g9", "int8"}
    with torch.no_grad():
        reference = mpq.load(artifact)(batch.tensors[0])
    assert abs(kl_divergence(reference, run(done.path, batch.tensors[0]))) < 1e-8


def small_classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, groups=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))


def test_a_state_dict_is_traced_with_the_users_data(tmp_path: Path) -> None:
    torch.save(small_classifier().state_dict(), tmp_path / "weights.pt")
    inputs = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.save(inputs, tmp_path / "data.pt")
    factory = "tests.export.weights.onnx.test_target:small_classifier"
    _, artifact = make(tmp_path / "weights.pt", Batch((inputs,)), in_turn("int4-g9", "int8"), tmp_path, factory=factory)
    with pytest.raises(ExportError, match="has no example inputs to trace it with: add --data FILE; two samples are enough"):
        export(artifact, "onnx", options=Options(factory=factory))
    with pytest.raises(TrustError, match=f"asks mpq to import and call {factory}"):
        export(artifact, "onnx", options=Options(data=str(tmp_path / "data.pt")))
    done = export(artifact, "onnx", options=Options(data=str(tmp_path / "data.pt"), factory=factory))
    reference = mpq.load(artifact, small_classifier())(inputs).detach()
    assert float((reference - run(done.path, inputs)).abs().max()) < 1e-5


def test_a_plan_has_no_weights_to_export(tmp_path: Path) -> None:
    model = save_llama(tmp_path / "llama")
    plan, _ = make(model, Batch((), {"input_ids": tokens()}), by_name({}, "int4-g32"), tmp_path)
    with pytest.raises(ExportError) as caught:
        export(plan, "onnx")
    assert str(caught.value) == f"{plan} is a plan, and this target needs the weights: run `mpq apply plan.yaml`, then export what it wrote"
