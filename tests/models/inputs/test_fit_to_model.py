import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mpq.data.dataset import Data
from mpq.errors import DataError
from mpq.models.inputs.fit_to_model import fit_data
from mpq.models.sources.loaded import LoadedModel

IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


def convolution() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 5)).eval()


def in_memory(module: nn.Module) -> LoadedModel:
    return LoadedModel(module, "memory", "0")


def exported(batch_size: int) -> LoadedModel:
    example = torch.zeros(batch_size, 3, 8, 8)
    program = torch.export.export(convolution(), (example,))
    return LoadedModel(program.module(), "export", "0", example_inputs=((example,), {}))


def fit(content: object, model: LoadedModel, **options: int) -> Data:
    return fit_data(content, model=model, source="memory", **options)  # type: ignore[arg-type]


IN_MEMORY = in_memory(convolution())


def labels_of(data: Data) -> list[int]:
    return [int(label) for batch in data.batches if batch.labels is not None for label in batch.labels]


def test_a_program_of_one_batch_size_gets_whole_batches() -> None:
    data = fit(torch.randn(7, 3, 8, 8), exported(3))
    assert [batch.size for batch in data.batches] == [3, 3]
    assert data.fixed_batch == 3
    assert data.description == "6 samples of [3, 8, 8]; the model takes exactly 3 per batch, so the last 1 are dropped"
    assert fit(IMAGES, exported(1)).description == "6 samples of [3, 8, 8]; the model takes exactly 1 per batch"
    with pytest.raises(DataError, match=r"^memory: the model takes exactly 8 samples per batch, and there are 6: give at least 8"):
        fit(IMAGES, exported(8))


def test_a_program_with_a_largest_batch_gets_no_larger_one() -> None:
    dynamic = {0: torch.export.Dim("batch", min=1, max=5)}
    program = torch.export.export(convolution(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=(dynamic,))
    data = fit(torch.randn(8, 3, 8, 8), LoadedModel(program.module(), "export", "0"))
    assert ([batch.size for batch in data.batches], data.fixed_batch) == ([4, 4], None)


def test_the_default_batch_is_64_samples_or_8_large_ones_or_token_sequences() -> None:
    narrow = in_memory(nn.Linear(3, 2))
    assert fit(torch.zeros(100, 3), narrow).batches[0].size == 64
    assert fit(torch.zeros(20, 5, dtype=torch.int64), in_memory(nn.Embedding(4, 2))).batches[0].size == 8


def test_batches_in_a_list_keep_their_size_unless_another_is_given() -> None:
    batches = [IMAGES[:4], IMAGES[4:]]
    assert [batch.size for batch in fit(batches, IN_MEMORY).batches] == [4, 2]
    assert [batch.size for batch in fit(batches, IN_MEMORY, batch_size=3).batches] == [3, 3]


def test_data_in_memory_is_fitted_to_the_model() -> None:
    loader = DataLoader(TensorDataset(IMAGES.double(), LABELS), batch_size=4)
    data = fit_data(loader, model=IN_MEMORY, source="memory")
    assert labels_of(data) == LABELS.tolist()
    assert data.batches[0].args[0].dtype == torch.float32


def test_states_of_recurrent_layers_are_cut_along_their_second_axis() -> None:
    states = (torch.zeros(1, 6, 4), torch.zeros(1, 6, 4))
    data = fit_data(
        [(torch.randn(6, 5, 3), states), (torch.randn(6, 5, 3), states)], model=in_memory(nn.LSTM(3, 4, batch_first=True)), source="m"
    )
    assert ([batch.size for batch in data.batches], data.fixed_batch) == ([6, 6], None)
    assert [list(tensor.shape) for tensor in data.batches[0].select([4]).tensors] == [[1, 5, 3], [1, 1, 4], [1, 1, 4]]
    assert "states of recurrent layers are cut along axis 1" in data.description


def test_entries_that_the_model_does_not_take_are_left_out_and_named() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
            found: torch.Tensor = self.layer(x) * scale
            return found

    rows = {"x": torch.randn(4, 3), "scale": 2.0, "file": ["a", "b", "c", "d"], "index": torch.arange(4)}
    data = fit_data(rows, model=in_memory(Named()), source="m")
    assert list(data.batches[0].kwargs) == ["x", "scale"]
    assert "left out, because the model does not take it: file, index" in data.description
    with pytest.raises(DataError, match="unexpected keyword argument"):
        fit_data({"a": torch.randn(4, 3), "b": torch.randn(4, 3)}, model=in_memory(Named()), source="m")
