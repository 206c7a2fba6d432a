import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mpq.data.array_files import READABLE
from mpq.data.dataset import Data
from mpq.errors import DataError, UsageError
from mpq.models.inputs.load_data import example_data, load_data
from mpq.models.sources.loaded import LoadedModel

IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        outputs: Tensor = self.linear(x) * steps[:, None].float()
        return outputs


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(32, 4)
        self.head = nn.Linear(4, 32)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        return {"logits": self.head(self.embedding(input_ids))}


def convolution() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 5)).eval()


def in_memory(module: nn.Module) -> LoadedModel:
    return LoadedModel(module, "memory", "0")


def exported(batch_size: int) -> LoadedModel:
    example = torch.zeros(batch_size, 3, 8, 8)
    program = torch.export.export(convolution(), (example,))
    return LoadedModel(program.module(), "export", "0", example_inputs=((example,), {}))


@pytest.fixture(name="images")
def images_model() -> LoadedModel:
    return in_memory(convolution())


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(content: object, model: LoadedModel, **options: Any) -> Data:
    torch.save(content, "calibration.pt")
    return load_data("calibration.pt", model=model, **options)


def labels_of(data: Data) -> list[int]:
    return [int(label) for batch in data.batches if batch.labels is not None for label in batch.labels]


def test_a_tensor_is_samples_along_its_first_dimension(images: LoadedModel) -> None:
    data = load(IMAGES, images)
    assert data.description == "6 samples of [3, 8, 8]"
    assert data.source == "calibration.pt"
    assert torch.equal(data.batches[0].args[0], IMAGES)


@pytest.mark.parametrize(
    "content",
    [(IMAGES, LABELS), [IMAGES, LABELS], {"images": IMAGES, "labels": LABELS}, [(IMAGES[:4], LABELS[:4]), (IMAGES[4:], LABELS[4:])]],
    ids=["tuple", "list", "dict", "batches"],
)
def test_labels_are_kept_from_the_model(images: LoadedModel, content: object) -> None:
    data = load(content, images)
    assert labels_of(data) == LABELS.tolist()
    assert data.description == "6 samples of [3, 8, 8]"


def test_integers_are_an_input_where_the_model_needs_them() -> None:
    (batch,) = load((torch.zeros(4, 3), torch.arange(4)), in_memory(Two())).batches
    assert (len(batch.args), batch.labels) == (2, None)
    (batch,) = load((torch.zeros(4, 3), torch.arange(4), torch.tensor([0, 1, 0, 1])), in_memory(Two())).batches
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1, 0, 1]


def test_keyword_arguments_keep_their_names() -> None:
    (batch,) = load({"steps": torch.arange(4), "x": torch.zeros(4, 3)}, in_memory(Two())).batches
    assert sorted(batch.kwargs) == ["steps", "x"]


def test_y_is_an_input_where_the_model_takes_it() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    (batch,) = load({"x": torch.zeros(4, 3), "y": torch.zeros(4, 3)}, in_memory(Sum())).batches
    assert (sorted(batch.kwargs), batch.labels) == (["x", "y"], None)


def test_the_same_data_in_any_file_has_the_same_hash(images: LoadedModel) -> None:
    expected = load((IMAGES, LABELS), images).sha256
    torch.save((IMAGES, LABELS.to(torch.uint8)), "legacy.pt", _use_new_zipfile_serialization=False)
    np.savez("unnamed.npz", IMAGES.numpy(), LABELS.numpy())
    np.savez("named.npz", images=IMAGES.numpy(), labels=LABELS.numpy().astype(">i4"))
    save_file({"images": IMAGES, "labels": LABELS}, "data.safetensors")
    for name in ("legacy.pt", "unnamed.npz", "named.npz", "data.safetensors"):
        assert load_data(name, model=images).sha256 == expected
    np.save("images.npy", IMAGES.numpy())
    Path("images.npy").rename("images.bin")
    assert load_data("images.bin", model=images).sha256 == load(IMAGES, images).sha256


def test_num_samples_are_spread_over_the_file(images: LoadedModel) -> None:
    saved = [(IMAGES[:4], LABELS[:4]), (IMAGES[4:], LABELS[4:])]
    data = load(saved, images, num_samples=3)
    assert labels_of(data) == LABELS[[0, 1, 3]].tolist()
    assert (data.ranks, data.description) == ((0, 2, 1), "3 of 6 samples of [3, 8, 8], spread evenly over all")
    first = load_data("calibration.pt", model=images, num_samples=3, spread=False)
    assert (labels_of(first), first.ranks, first.description) == (LABELS[:3].tolist(), (), "3 samples of [3, 8, 8]")
    everything = load_data("calibration.pt", model=images, num_samples=6)
    assert (labels_of(everything), everything.ranks, everything.description) == (LABELS.tolist(), (), "6 samples of [3, 8, 8]")


def test_a_larger_number_keeps_the_samples_of_a_smaller_one(images: LoadedModel) -> None:
    four, five = (load((IMAGES, LABELS), images, num_samples=number) for number in (4, 5))
    assert five.spread(4).sha256 == four.sha256 == load((IMAGES, LABELS), images).spread(4).sha256


def test_a_fixed_batch_size_spreads_whole_batches() -> None:
    program = torch.export.export(convolution(), (IMAGES[:2],))
    data = load(IMAGES, LoadedModel(program.module(), "export", "0", example_inputs=((IMAGES[:2],), {})), num_samples=5)
    assert [torch.equal(batch.args[0], IMAGES[place : place + 2]) for batch, place in zip(data.batches, (0, 2), strict=True)] == [True] * 2
    assert (data.samples, data.ranks) == (4, (0, 1))
    assert data.description == "4 of 6 samples of [3, 8, 8], spread evenly over all; the model takes exactly 2 per batch"


def test_floats_of_another_dtype_are_converted_and_it_is_said(images: LoadedModel) -> None:
    data = load(IMAGES.double(), images)
    assert data.description == "6 samples of [3, 8, 8]; converted from float64 to float32"
    assert data.sha256 == load(IMAGES, images).sha256
    assert load(IMAGES, in_memory(convolution().bfloat16())).batches[0].args[0].dtype == torch.bfloat16


def test_token_ids_go_to_input_ids() -> None:
    data = load(torch.ones(3, 5, dtype=torch.int16), in_memory(Tokens()))
    assert data.description == "3 samples of input_ids [5]; converted from int16 to int64"
    assert not data.ordered


def test_token_ids_beyond_the_vocabulary_are_refused() -> None:
    ids = torch.ones(3, 5, dtype=torch.int64)
    ids[2, 4] = 40
    model = LoadedModel(Tokens(), "hf", "0", config={"vocab_size": 32})
    with pytest.raises(DataError, match=r"^calibration.pt: token id 40 is out of range: the model's vocabulary has 32 tokens, 0 to 31$"):
        load(ids, model)


def test_a_wrong_shape_is_refused_with_the_shape_of_the_example_inputs() -> None:
    message = (
        r"^calibration.pt: the model does not accept a batch of float32 \[2, 1, 8, 8\]: .*; its example inputs are float32 \[2, 3, 8, 8\]$"
    )
    with pytest.raises(DataError, match=message):
        load(IMAGES[:2, :1], exported(2))


def test_images_in_bytes_are_refused_with_the_remedy(images: LoadedModel) -> None:
    message = (
        r"uint8 \[1, 3, 8, 8\]: .*; images must be normalised as in training first, for example \(x / 255 - mean\) / std, and saved as"
    )
    with pytest.raises(DataError, match=message):
        load(IMAGES.to(torch.uint8), images)


def test_a_later_batch_of_a_wrong_shape_is_refused_before_the_long_run(images: LoadedModel) -> None:
    with pytest.raises(DataError, match=r"^calibration.pt: the model does not accept a batch of float32 \[1, 3, 9, 9\]"):
        load([IMAGES, torch.zeros(6, 3, 9, 9)], images)


def test_nan_is_refused_with_the_number_of_samples(images: LoadedModel) -> None:
    spoilt = IMAGES.clone()
    spoilt[1, 0, 0, 0] = spoilt[4, 2, 1, 1] = torch.nan
    with pytest.raises(DataError, match=r"^calibration.pt: 2 of 6 samples hold NaN: remove or repair them$"):
        load(spoilt, images)


@pytest.mark.parametrize("wrong", [5, -1])
def test_labels_out_of_range_are_refused(images: LoadedModel, wrong: int) -> None:
    labels = LABELS.clone()
    labels[3] = wrong
    told = f"calibration.pt: label {wrong} is out of range: the model gives 5 classes, 0 to 4; "
    told += "if it stands for 'no label', replace it with -100"
    with pytest.raises(DataError, match=f"^{re.escape(told)}$"):
        load((IMAGES, labels), images)


def test_empty_data_is_refused(images: LoadedModel) -> None:
    with pytest.raises(DataError, match=r"^calibration.pt: it holds no samples: give at least one$"):
        load(IMAGES[:0], images)
    with pytest.raises(DataError, match=r"^calibration.pt: the data holds no samples: give at least one$"):
        load([], images)


def test_files_that_cannot_be_read_are_refused(images: LoadedModel, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(IMAGES, buffer)
    Path("cut.pt").write_bytes(buffer.getvalue()[:500])
    Path("empty.pt").touch()
    Path("noise.bin").write_bytes(bytes(range(128, 256)))
    np.savez("words.npz", words=np.array(["a", "b"]))
    torch.save(nn.Linear(2, 2), "pickled.pt")
    readable = READABLE
    for source, message in {
        "cut.pt": "cut.pt is a truncated or damaged archive: save the data again",
        "empty.pt": f"empty.pt is empty: give a file of {readable}, or package.module:callable",
        "missing.pt": f"missing.pt does not exist: give a file of {readable}, or package.module:callable",
        ".": f". is a folder without Parquet or Arrow files, and without PNG or JPEG images: give a file of {readable}",
        "noise.bin": "noise.bin is neither a file of tensors nor UTF-8 text (byte 0): give one of these",
        "words.npz": "words.npz, array 'words' holds <U1, which is not numeric: save numeric arrays",
        "pickled.pt": (
            "pickled.pt holds pickled Python objects (torch.nn.modules.linear.Linear), which run code when loaded: "
            "save plain tensors with torch.save"
        ),
    }.items():
        with pytest.raises(DataError) as caught:
            load_data(source, model=images)
        assert str(caught.value) == message


def test_options_that_do_not_apply_are_refused(images: LoadedModel) -> None:
    with pytest.raises(UsageError, match=r"^--seq-len 8 applies to text, but calibration.pt holds tensors: leave it out$"):
        load(IMAGES, images, seq_len=8)
    with pytest.raises(UsageError, match=r"^calibration.pt\?split=a selects lines, but the file holds tensors: leave out '\?split=a'$"):
        load_data("calibration.pt?split=a", model=images)
    with pytest.raises(UsageError, match=r"^--batch-size 0 is not a number of samples: give 1 or more$"):
        load(IMAGES, images, batch_size=0)


MODULE = """
import torch
from torch.utils.data import DataLoader, TensorDataset
def tensor(): return torch.randn(5, 3, 8, 8)
def loader(): return DataLoader(TensorDataset(torch.randn(9, 3, 8, 8), torch.arange(9) % 5), batch_size=4, shuffle=True)
def endless():
    while True: yield torch.randn(2, 3, 8, 8)
def nothing(): pass
def fails(): raise ValueError("no such folder")
"""


@pytest.fixture(name="source")
def source_of_callables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"calibration_of_{tmp_path.name.replace('-', '_')}"
    Path(f"{name}.py").write_text(MODULE)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    return name


def test_a_callable_of_the_current_folder_makes_the_data(images: LoadedModel, source: str) -> None:
    assert load_data(f"{source}:tensor", model=images).description == "5 samples of [3, 8, 8]"
    assert [batch.size for batch in load_data(f"{source}:loader", model=images).batches] == [4, 4, 1]
    endless = load_data(f"{source}:endless", model=images, num_samples=3)
    assert (endless.samples, endless.ranks) == (3, ())
    assert load_data(f"{source}:tensor", model=images, num_samples=3).ranks == (0, 2, 1)


def test_the_seed_decides_what_a_callable_makes_and_the_callers_randomness_is_left_alone(images: LoadedModel, source: str) -> None:
    state = torch.random.get_rng_state()
    first = load_data(f"{source}:loader", model=images)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert load_data(f"{source}:loader", model=images).sha256 == first.sha256
    assert load_data(f"{source}:loader", model=images, seed=1).sha256 != first.sha256


def test_a_callable_that_fails_is_reported(images: LoadedModel, source: str) -> None:
    with pytest.raises(DataError, match=rf"^{source}:fails failed with ValueError: no such folder$"):
        load_data(f"{source}:fails", model=images)
    with pytest.raises(DataError, match=rf"^{source}:nothing returned None: return tensors, or an iterable of batches$"):
        load_data(f"{source}:nothing", model=images)
    with pytest.raises(DataError, match=r"^no_such_module:f failed with ModuleNotFoundError: No module named 'no_such_module'$"):
        load_data("no_such_module:f", model=images)


def test_example_inputs_serve_as_data() -> None:
    data = example_data(exported(2))
    assert (data.samples, data.source) == (2, "example inputs")
    message = r"^no calibration data was given, and the model has no example inputs: give data with --calib FILE$"
    with pytest.raises(DataError, match=message):
        example_data(in_memory(nn.Linear(2, 2)))


def test_a_folder_of_images_is_read_with_its_classes_as_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            image.new("RGB", (12, 10), (40 * number, 0, 255)).save(tmp_path / "photos" / name / f"{number}.png")
    data = load_data("photos?resize=8x8", model=in_memory(convolution()), num_samples=4)
    assert data.samples == 4
    assert torch.cat([batch.tensors[0] for batch in data.batches]).shape == (4, 3, 8, 8)
    assert torch.cat([batch.labels for batch in data.batches if batch.labels is not None]).tolist() == [0, 1, 0, 1]
    assert data.ranks == (0, 1, 2, 3)
    assert "4 of 6 images, spread evenly over the folder, of 2 classes, resized to 8 x 8, values 0 to 1 (as asked)" in data.description
    assert data.source == "photos?resize=8x8"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty is a folder without Parquet or Arrow files, and without PNG or JPEG images: give a file of"):
        load_data("empty", model=in_memory(convolution()))
