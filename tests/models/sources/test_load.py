from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mpq.errors import ModelError
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
