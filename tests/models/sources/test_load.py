import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mpq.errors import ModelError, NumericsError, UsageError
from mpq.models.sources.load import from_module, load_model

FACTORY = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.norm(self.conv(x)).mean((2, 3)))

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.embed(x))

class Given:
    @staticmethod
    def net():
        return Net()

def number():
    return 3

def fails():
    raise ValueError("no such thing\\nsecond line")
"""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.out = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.out(self.norm(self.conv(x)).mean((2, 3)))
        return result


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with the module of a factory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made_here.py").write_text(FACTORY)
    monkeypatch.delitem(__import__("sys").modules, "made_here", raising=False)
    torch.manual_seed(0)
    return tmp_path


def refusal(path: str, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


LOADABLE = "mpq loads a torch.export archive, TorchScript, a state dict (.pt, .safetensors) or a Hugging Face directory"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (bytes(range(255, 0, -1)) * 9, "not a model file"),
        ("größer\n".encode() * 900, "a text file and not a model"),
        (b"GGUF\x03\x00\x00\x00" + bytes(40), "a GGUF file, which mpq cannot load"),
        (b"\x08\x07\x12\x07pytorch\x1a\x052.0.0" + bytes(9), "an ONNX file, which mpq cannot load"),
        (b"\x89HDF\r\n\x1a\n" + bytes(9), "an HDF5 file, which mpq cannot load"),
        (b"\x93NUMPY\x01\x00", "a NumPy array and not a model"),
    ],
)
def test_a_foreign_file_is_named(content: bytes, what: str) -> None:
    Path("model.pt").write_bytes(content)
    assert refusal("model.pt") == f"model.pt is {what}: {LOADABLE}"


def test_nothing_an_empty_file_and_an_empty_directory_are_refused() -> None:
    Path("empty.pt").touch()
    Path("folder").mkdir()
    assert refusal("nope.pt") == "nope.pt does not exist: check the path of the model"
    assert refusal("empty.pt") == "empty.pt is empty: check the path of the model"
    assert refusal("folder") == "folder is a directory without config.json: give a model file or a Hugging Face directory"


def test_a_zip_without_a_model_is_refused() -> None:
    with zipfile.ZipFile("photos.zip", "w") as archive:
        archive.writestr("a.txt", "x")
    with zipfile.ZipFile("data.npz", "w") as archive:
        archive.writestr("a.npy", "x")
    with zipfile.ZipFile("old.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
    assert refusal("photos.zip") == f"photos.zip is a zip archive without a model: {LOADABLE}"
    assert refusal("data.npz") == "data.npz holds NumPy arrays, not a model: give it as data, with --calib or --data"
    assert refusal("old.pt2") == "old.pt2 was exported by an older torch: export the model again with torch 2.9 or newer"


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_needs_a_factory_and_is_loaded_in_eval_mode(zipped: bool) -> None:
    net = Net()
    torch.save(net.state_dict(), "weights", _use_new_zipfile_serialization=zipped)
    expected = "weights holds weights without a module: add --builder package.module:callable, which makes the module"
    assert refusal("weights") == expected
    loaded = load_model("weights", factory="made_here:Net")
    assert (loaded.kind, loaded.factory, loaded.path) == ("state_dict", "made_here:Net", Path("weights"))
    assert not loaded.module.training
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in loaded.module.state_dict().items())
    assert load_model("weights", factory="made_here:Given.net").sha256 == loaded.sha256


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_checkpoint_is_searched_for_its_state_dict_and_wrapper_prefixes_are_stripped(prefix: str) -> None:
    state = {prefix + name: tensor for name, tensor in Net().state_dict().items()}
    torch.save({"epoch": 3, "model": {"state_dict": state}}, "checkpoint.pt")
    assert isinstance(load_model("checkpoint.pt", factory="made_here:Net").module, nn.Module)


def test_a_prefix_that_is_the_modules_own_is_kept(folder: Path) -> None:
    wrapped = nn.ModuleDict({"module": nn.Linear(2, 2)})
    (folder / "wraps.py").write_text("from torch import nn\ndef make():\n    return nn.ModuleDict({'module': nn.Linear(2, 2)})\n")
    torch.save(wrapped.state_dict(), "weights.pt")
    assert "module.weight" in load_model("weights.pt", factory="wraps:make").module.state_dict()


def test_a_state_dict_that_does_not_fit_names_the_first_keys() -> None:
    state = Net().state_dict()
    state["extra"] = state.pop("out.bias")
    torch.save(state, "w.pt")
    expected = (
        "w.pt does not fit the module of made_here:Net: missing: out.bias; unexpected: extra; give the builder that made this checkpoint"
    )
    assert refusal("w.pt", factory="made_here:Net") == expected
    torch.save({**Net().state_dict(), "out.weight": torch.zeros(3, 4)}, "w.pt")
    assert refusal("w.pt", factory="made_here:Net") == (
        "w.pt does not fit the module of made_here:Net: 'out.weight' is [3, 4] in the file and [2, 4] in the module; "
        "give the builder that made this checkpoint"
    )


def test_a_tied_tensor_stored_once_fits() -> None:
    save_file({"embed.weight": torch.ones(5, 4)}, "tied.safetensors")
    module = load_model("tied.safetensors", factory="made_here:Tied").module
    assert torch.equal(module.state_dict()["head.weight"], torch.ones(5, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_checkpoints_dtype_is_kept(dtype: torch.dtype) -> None:
    save_file(Net().to(dtype).state_dict(), "weights.bin")
    module = load_model("weights.bin", factory="made_here:Net").module
    assert {tensor.dtype for tensor in module.state_dict().values()} == {dtype, torch.int64}


def test_mixed_dtypes_are_kept_tensor_by_tensor_and_ties_stay_tied() -> None:
    state = {name: tensor.half() if tensor.dim() > 1 else tensor for name, tensor in Net().state_dict().items()}
    torch.save(state, "w.pt")
    loaded = load_model("w.pt", factory="made_here:Net").module.state_dict()
    assert {name: tensor.dtype for name, tensor in loaded.items()} == {name: tensor.dtype for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("made_here", "'made_here' does not name a callable: write --builder package.module:callable"),
        (":Net", "':Net' does not name a callable: write --builder package.module:callable"),
        ("nowhere:Net", "--builder nowhere:Net failed with ModuleNotFoundError: No module named 'nowhere'"),
        ("made_here:Nets", "--builder made_here:Nets failed with AttributeError: module 'made_here' has no attribute 'Nets'"),
        ("made_here:fails", "--builder made_here:fails failed with ValueError: no such thing"),
        ("made_here:number", "--builder made_here:number returned int: it must return a torch.nn.Module"),
    ],
)
def test_a_factory_that_cannot_be_used_is_a_usage_error(factory: str, message: str) -> None:
    torch.save(Net().state_dict(), "w.pt")
    with pytest.raises(UsageError) as caught:
        load_model("w.pt", factory=factory)
    assert str(caught.value) == message


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_module_is_refused_without_trust_and_loaded_with_it(zipped: bool) -> None:
    torch.save(Net(), "net.pt", _use_new_zipfile_serialization=zipped)
    assert refusal("net.pt") == (
        f"net.pt holds pickled Python objects ({Net.__module__}.Net), which run code when loaded: "
        "save a torch.export archive or a state dict instead, or add --trust if you trust the file, whose code then runs with your rights"
    )
    loaded = load_model("net.pt", trust=True)
    assert loaded.kind == "pickle"
    assert not loaded.module.training


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import pathlib; pathlib.Path('ran').touch()",))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_not_run(zipped: bool) -> None:
    torch.save({"weight": torch.ones(2), "x": Runs()}, "evil.pt", _use_new_zipfile_serialization=zipped)
    Path("plain.pkl").write_bytes(pickle.dumps(Runs(), protocol=2))
    assert "--trust" in refusal("evil.pt")
    refusal("plain.pkl")
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("content", "what"),
    [(torch.ones(3), "a tensor"), ({"epoch": 1, "loss": 0.5}, "a dict with epoch, loss"), ({}, "an empty dict"), ([1], "a list")],
)
def test_a_file_of_torch_save_that_is_no_model_is_described(content: object, what: str) -> None:
    torch.save(content, "data.pt")
    assert refusal("data.pt") == f"data.pt holds {what} and not a model: give a state dict or a torch.export archive"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.1, 0.6, 0.98])
def test_a_truncated_state_dict_is_refused(zipped: bool, share: float) -> None:
    torch.save(Net().state_dict(), "w.pt", _use_new_zipfile_serialization=zipped)
    content = Path("w.pt").read_bytes()
    Path("w.pt").write_bytes(content[: int(len(content) * share)])
    assert refusal("w.pt", factory="made_here:Net").startswith("w.pt ")


def test_safetensors_that_are_truncated_or_already_an_artifact_are_refused() -> None:
    save_file({"weight": torch.ones(9)}, "w.safetensors", metadata={"mpq": "{}"})
    expected = "w.safetensors is already an mpq artifact: run it with `mpq eval` or mpq.load, or give the original model"
    assert refusal("w.safetensors") == expected
    Path("w.safetensors").write_bytes(Path("w.safetensors").read_bytes()[:40])
    assert refusal("w.safetensors") == "w.safetensors is a truncated .safetensors file: save or download the model again"


def test_a_missing_factory_is_told_before_the_tensors_are_read() -> None:
    save_file({"weight": torch.ones(9)}, "w.safetensors")
    expected = "w.safetensors holds weights without a module: add --builder package.module:callable, which makes the module"
    assert refusal("w.safetensors") == expected


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("traced", [True, False])
def test_torchscript_is_recognised_and_runs_in_eval_mode(traced: bool) -> None:
    net, image = Net().eval(), torch.randn(2, 3, 5, 5)
    (torch.jit.trace(net, image) if traced else torch.jit.script(net)).save("model.bin")  # type: ignore[no-untyped-call]
    loaded = load_model("model.bin")
    assert loaded.kind == "torchscript"
    assert not loaded.module.training
    assert torch.allclose(loaded.module(image), net(image))


def test_infinity_is_refused_in_weights_and_allowed_in_buffers() -> None:
    net = Net().eval()
    net.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    assert from_module(net).kind == "memory"
    with torch.no_grad():
        net.out.weight[0, 0] = float("inf")
    with pytest.raises(NumericsError, match=r"^Net: weight 'out\.weight' holds NaN or infinity: train or save the model again$"):
        from_module(net)
    nan = Net().eval()
    nan.norm.running_mean = torch.full((4,), float("nan"))
    with pytest.raises(NumericsError, match=r"^Net: buffer 'norm\.running_mean' holds NaN: train or save the model again$"):
        from_module(nan)


def test_a_module_in_memory_is_used_as_it_is_and_hashed_by_its_contents() -> None:
    net = Net().eval()
    loaded = from_module(net)
    assert loaded.module is net
    assert loaded.path is None
    same = Net().eval()
    same.load_state_dict(net.state_dict())
    assert from_module(same).sha256 == loaded.sha256
    with torch.no_grad():
        same.out.bias[0] += 1
    assert from_module(same).sha256 != loaded.sha256
    assert from_module(net.bfloat16()).sha256 != loaded.sha256


def test_a_module_in_training_mode_or_without_values_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^the model is in training mode: call model\.eval\(\) first$"):
        from_module(Net())
    with pytest.raises(ModelError, match=r"^Linear: 'weight' is on the meta device and has no values: load the weights first$"):
        from_module(nn.Linear(2, 2, device="meta").eval())
