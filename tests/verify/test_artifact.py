"""An artifact carries digests of its weights in its header, at no cost in bytes, and damage is named."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from mpq.apply.run import apply
from mpq.data.dataset import Batch
from mpq.errors import FormatError
from mpq.models.sources.load import load_model
from mpq.records.artifact import read_artifact_header
from mpq.verify.artifact import judge_artifact
from tests.export.artifacts import by_name, make


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.c(torch.relu(self.b(torch.relu(self.a(x)))))
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    x = torch.randn(4, 64)
    torch.export.save(
        torch.export.export(Small().eval(), (x,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=64)},)), folder / "m.pt2"
    )
    return make(folder / "m.pt2", Batch((x,)), by_name({}, "int4-g32"), folder)[1]


def changed(artifact: Path, name: str, change: Callable[[Tensor], Tensor]) -> None:
    """Change a tensor of a file in its place."""
    with safe_open(artifact, framework="pt") as file:
        old = file.get_tensor(name).clone()
    raw = bytearray(artifact.read_bytes())
    content = old.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    assert raw.count(content) == 1
    place = raw.index(content)
    raw[place : place + len(content)] = change(old).contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    artifact.write_bytes(raw)


def test_an_undamaged_artifact_passes(made: Path) -> None:
    found = judge_artifact(made)
    assert found.passed, found.line
    assert (found.layers, found.tensors) == (3, 3)
    assert found.outputs[0].difference is not None


def test_the_fingerprint_takes_no_byte_more(made: Path, tmp_path: Path) -> None:
    loaded = load_model(made.with_name("m.pt2"))
    output = tmp_path / "without.mpq.safetensors"
    apply(loaded, made.with_name("plan.yaml"), output, allow_unchanged=True, fingerprint=False)
    assert output.stat().st_size == made.stat().st_size
    assert [len(each) for each in read_artifact_header(made).digests] == [8] * 4
    assert read_artifact_header(output).digests == ()
    with pytest.raises(FormatError, match="has no fingerprint"):
        judge_artifact(output)


@pytest.mark.parametrize(
    ("tensor", "change", "kind", "name"),
    [
        ("b.scales", lambda t: t.roll(1, 0), "scales swapped", "b"),
        ("b.scales", lambda t: t.flip(1), "group order", "b"),
        ("b.codes", lambda t: t >> 4 | t << 4, "nibbles swapped", "b"),
        ("b.codes", lambda t: t ^ 0x88, "sign", "b"),
        ("b.codes", lambda t: t ^ 1, "weights", "b"),
        ("b.bias", lambda t: t * 2, "tensor", "unquantized tensors"),
    ],
)
def test_a_damage_is_named(made: Path, tmp_path: Path, tensor: str, change: Callable[[Tensor], Tensor], kind: str, name: str) -> None:
    copy = Path(shutil.copy(made, tmp_path))
    changed(copy, tensor, change)
    (found,) = judge_artifact(copy).findings
    assert (found.kind, found.name) == (kind, name)


def test_swapped_scales_name_both_layers(made: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(made, tmp_path))
    with safe_open(made, framework="pt") as file:
        first, second = file.get_tensor("a.scales").clone(), file.get_tensor("b.scales").clone()
    changed(copy, "a.scales", lambda _: torch.full_like(first, 3.0))
    changed(copy, "b.scales", lambda _: first)
    changed(copy, "a.scales", lambda _: second)
    found = judge_artifact(copy).findings
    assert [(each.kind, each.name, each.message) for each in found] == [
        ("scales swapped", "a", "its scales are swapped with those of 'b'"),
        ("scales swapped", "b", "its scales are swapped with those of 'a'"),
    ]
