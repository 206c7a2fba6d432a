"""What counts as a sample: rows, another axis, or whole batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

import mpq
from mpq.data.batch import Batch
from mpq.data.dataset import Data
from mpq.errors import DataError, ModelError, UsageError
from mpq.evaluate.run import evaluate
from mpq.models.inputs.find_samples import Rows, examine_lists
from mpq.models.inputs.fit_to_model import fit_data
from mpq.models.running.choose_comparison import choose_comparison
from mpq.models.running.forward import forward, named
from mpq.models.sources.load import from_module


class Graph(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        def gather(h: Tensor) -> Tensor:
            return torch.zeros_like(h).index_add(0, edge_index[1], h[edge_index[0]])

        found: Tensor = self.b(gather(torch.relu(gather(self.a(x)))))
        return found


class Adjacency(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 4)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        return adjacency @ torch.tanh(self.a(x))


class Bags(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.e, self.l = nn.EmbeddingBag(100, 16, mode="mean"), nn.Linear(16, 4)

    def forward(self, indices: Tensor, offsets: Tensor) -> Tensor:
        found: Tensor = self.l(self.e(indices, offsets))
        return found


class Packed(nn.Module):
    """Attention within sequences that lie one after the other."""

    def __init__(self, *, pooled: bool) -> None:
        super().__init__()
        self.e, self.q, self.pooled = nn.Embedding(50, 8), nn.Linear(8, 8), pooled

    def forward(self, tokens: Tensor, cu_seqlens: Tensor) -> Tensor:
        found, ends = [], cu_seqlens.tolist()
        for begin, end in itertools.pairwise(ends):
            h = self.e(tokens)[begin:end]
            mixed = torch.softmax(self.q(h) @ h.T, -1) @ h
            found.append(mixed.mean(0, keepdim=True) if self.pooled else mixed)
        return torch.cat(found)


class Cloud(nn.Module):
    """One output for all points of a cloud."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 16), nn.Linear(16, 5)

    def forward(self, points: Tensor) -> Tensor:
        found: Tensor = self.b(torch.relu(self.a(points)).amax(0))
        return found


class Pairs(nn.Module):
    """Each image against each text, as in contrastive training."""

    def __init__(self) -> None:
        super().__init__()
        self.images, self.texts = nn.Linear(4, 8), nn.Linear(6, 8)

    def forward(self, images: Tensor, texts: Tensor) -> Tensor:
        return self.images(images) @ self.texts(texts).T  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    def __init__(self, *, batch_first: bool, last: bool = False) -> None:
        super().__init__()
        self.r, self.h, self.last = nn.LSTM(6, 5, batch_first=batch_first), nn.Linear(5, 3), last

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.r(x)[0]
        found: Tensor = self.h(hidden[-1] if self.last else hidden)
        return found


class Encoder(nn.Module):
    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)
        self.e = nn.TransformerEncoder(layer, 1, enable_nested_tensor=batch_first)

    def forward(self, x: Tensor, src_key_padding_mask: Tensor | None = None) -> Tensor:
        found: Tensor = self.e(x, src_key_padding_mask=src_key_padding_mask)
        return found


class Tagger(nn.Module):
    """Reads padded sequences by their lengths; its output is as long as the longest sequence of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.r, self.h = nn.GRU(4, 6, batch_first=True, bidirectional=True), nn.Linear(12, 3)

    def forward(self, x: Tensor, x_lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, x_lengths.cpu(), batch_first=True, enforce_sorted=False)
        found: Tensor = self.h(pad_packed_sequence(self.r(packed)[0], batch_first=True)[0])
        return found


def graph(nodes: int) -> tuple[Tensor, Tensor]:
    return torch.randn(nodes, 8), torch.randint(0, nodes, (2, 3 * nodes))


def adjacent(nodes: int, layout: str) -> tuple[Tensor, Tensor]:
    matrix = (torch.rand(nodes, nodes) < 0.5).float()
    return torch.randn(nodes, 8), matrix.to_sparse() if layout == "coo" else matrix


def bags() -> tuple[Tensor, Tensor]:
    lengths = torch.randint(1, 6, (8,))
    return torch.randint(0, 100, (int(lengths.sum()),)), torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)[:-1]])


def packed() -> tuple[Tensor, Tensor]:
    lengths = torch.randint(2, 7, (4,))
    return torch.randint(0, 50, (int(lengths.sum()),)), torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])


def fit(module: nn.Module, content: Any, **choices: Any) -> Data:
    return fit_data(content, model=from_module(module.eval()), source="here", **choices)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


WHOLE: dict[str, tuple[Callable[[], nn.Module], Callable[[], list[Any]]]] = {
    "graphs": (Graph, lambda: [graph(n) for n in (7, 9, 12, 15, 8, 10)]),
    "dense adjacency": (Adjacency, lambda: [adjacent(n, "dense") for n in (7, 9, 8, 8, 6, 7)]),
    "dense adjacency of one size": (Adjacency, lambda: [adjacent(8, "dense") for _ in range(6)]),
    "sparse adjacency": (Adjacency, lambda: [adjacent(n, "coo") for n in (7, 9, 8, 8, 6, 7)]),
    "bags": (Bags, lambda: [bags() for _ in range(6)]),
    "packed sequences": (lambda: Packed(pooled=False), lambda: [packed() for _ in range(6)]),
    "pooled packed sequences": (lambda: Packed(pooled=True), lambda: [packed() for _ in range(6)]),
    "point clouds": (Cloud, lambda: [torch.randn(n, 3) for n in (9, 7, 12, 9, 8, 11)]),
    "all pairs": (Pairs, lambda: [(torch.randn(8, 4), torch.randn(8, 6)) for _ in range(6)]),
    "batch statistics": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 3)),
        lambda: [torch.randn(8, 6) for _ in range(6)],
    ),
    "PackedSequence": (
        lambda: nn.LSTM(6, 5),
        lambda: [pack_sequence([torch.randn(n, 6) for n in (5, 3, 2)]) for _ in range(6)],
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_batch_whose_rows_are_no_samples_is_one_sample(name: str) -> None:
    make, batches = WHOLE[name]
    model, given = make().eval(), batches()
    data = fit(model, given)
    assert [(batch.whole, batch.size) for batch in data.batches] == [(True, 1)] * 6
    assert "one batch is one sample: " in data.description
    assert data.description.startswith("6 batches of ")
    assert data.samples == 6
    assert [part.samples for part in data.split(0.5, seed=0)] == [3, 3]
    with torch.no_grad():
        plain = model(*given[2]) if type(given[2]) is tuple else model(given[2])
    first = next(iter(named(forward(model, data.batches[2])).values()))
    assert torch.equal(first[0], plain if isinstance(plain, Tensor) else plain[0].data)


@pytest.mark.parametrize("name", ["graphs", "sparse adjacency", "packed sequences", "point clouds"])
def test_both_methods_agree_on_whole_batches(name: str) -> None:
    make, batches = WHOLE[name]
    model, given = make().eval(), batches()
    errors = {}
    for method in ("measure", "fisher"):
        table = mpq.analyze(model, given, candidates=("8",), quantizer="rtn", method=method, metric="relative_mse", held_out=0.2)
        errors[method] = {pair: float(values.mean()) for pair, values in table.errors.items()}
        assert {len(values) for values in table.errors.values()} == {5}
    for pair, measured in errors["measure"].items():
        assert errors["fisher"][pair] == pytest.approx(measured, rel=1.5)


@pytest.mark.parametrize(
    ("model", "shape", "axis"),
    [
        (Recurrent(batch_first=False), (9, 16, 6), 1),
        (Recurrent(batch_first=False, last=True), (6, 6, 6), 1),
        (Recurrent(batch_first=True), (16, 9, 6), 0),
        (Encoder(batch_first=False), (7, 12, 8), 1),
        (Encoder(batch_first=True), (12, 7, 8), 0),
    ],
)
def test_the_axis_that_counts_samples_is_found(model: nn.Module, shape: tuple[int, ...], axis: int) -> None:
    given = torch.randn(shape)
    data = fit(model, given)
    assert (data.batches[0].axis, data.samples) == (axis, shape[axis])
    one = forward(model, data.batches[0].select([3]))[0]
    torch.testing.assert_close(one[0], forward(model, data.batches[0])[0][3])


def test_time_first_and_batch_first_give_the_same_figures() -> None:
    first, second = Recurrent(batch_first=False).eval(), Recurrent(batch_first=True).eval()
    second.load_state_dict(first.state_dict())
    given = torch.randn(9, 24, 6)
    tables = [
        mpq.analyze(model, data, candidates=("4", "8"), quantizer="mse", method=method)
        for model, data in ((first, given), (second, given.transpose(0, 1).contiguous()))
        for method in ("measure", "fisher")
    ]
    for one, other in zip(tables[:2], tables[2:], strict=True):
        for pair, values in one.errors.items():
            assert values == pytest.approx(other.errors[pair], rel=1e-3, abs=1e-9)


def test_outputs_whose_samples_are_along_another_axis_than_the_inputs_are_compared_by_sample() -> None:
    model = nn.LSTM(3, 4, num_layers=2, batch_first=True).eval()
    data = fit(model, torch.randn(6, 5, 3))
    shapes = {name: tuple(output.shape) for name, output in named(forward(model, data.batches[0])).items()}
    assert shapes == {"0": (6, 5, 4), "1.0": (6, 2, 4), "1.1": (6, 2, 4)}


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5)), torch.randn(16, 3, 8, 8)),
        (nn.Linear(64, 10).bfloat16(), torch.randn(64, 64).bfloat16()),
        (nn.Linear(64, 10).half(), torch.randn(64, 64).half()),
        (
            Encoder(batch_first=True),
            {"x": torch.randn(12, 7, 8), "src_key_padding_mask": torch.arange(7) >= torch.arange(12)[:, None] % 6 + 1},
        ),
        (Tagger(), (torch.randn(20, 9, 4), torch.arange(20) % 9 + 1)),
    ],
    ids=["batch norm", "bfloat16", "float16", "padded attention", "trimmed to the longest"],
)
def test_rows_that_do_not_mix_stay_samples(model: nn.Module, given: Any) -> None:
    data = fit(model, given)
    rows = len(given["x"] if isinstance(given, dict) else given[0] if isinstance(given, tuple) else given)
    assert (data.samples, data.batches[0].axis, data.batches[0].whole) == (rows, 0, False)
    assert "axis" not in data.description
    assert "one sample" not in data.description


@pytest.mark.parametrize("choice", [{}, {"batch_axis": 0}, {"seed_each_forward": True}], ids=str)
def test_a_model_of_python_code_with_one_batch_size_keeps_its_rows(choice: dict[str, Any]) -> None:
    class Four(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.l = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.l(x.view(4, 6))
            return found

    data = fit(Four(), [torch.randn(4, 6) for _ in range(3)], **choice)
    assert (data.samples, data.fixed_batch, data.batches[0].whole) == (12, 4, False)


def test_a_number_of_samples_counts_whole_batches_and_cuts_none() -> None:
    given = [graph(n) for n in (7, 9, 12)]
    data = fit(Graph(), given, num_samples=2)
    assert [batch.args[0].shape[0] for batch in data.batches] == [7, 9]


def test_the_user_says_what_a_sample_is() -> None:
    given = torch.randn(16, 9, 6)
    asked = fit(Recurrent(batch_first=True), [given, given], batch_axis="none")
    assert [batch.whole for batch in asked.batches] == [True, True]
    assert fit(Recurrent(batch_first=False), given, batch_axis=1).samples == 9
    assert fit(Recurrent(batch_first=False), given, batch_axis="0").samples == 16
    with pytest.raises(UsageError, match=r"^--batch-axis two is not an axis: give 0, 1 or 2, or none if each batch is one sample$"):
        fit(Recurrent(batch_first=True), given, batch_axis="two")
    with pytest.raises(DataError, match="a batch holds no tensor of samples: give tensors whose dimension 2 counts the samples"):
        fit(nn.Linear(6, 2), torch.randn(4, 6), batch_axis=2)


def test_one_batch_that_is_one_sample_is_refused_with_the_remedy() -> None:
    with pytest.raises(DataError, match=r"one batch is one sample here, and one sample cannot be split .* give a list of batches"):
        mpq.analyze(Cloud().eval(), torch.randn(40, 3), candidates=("8",), quantizer="rtn")


def test_a_random_model_is_refused_as_such() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.l = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.l(x + torch.randn_like(x))
            return found

    with pytest.raises(mpq.MpqError, match="gives different outputs each time"):
        fit(Noisy(), torch.randn(10, 6))
    assert fit(Noisy(), torch.randn(10, 6), seed_each_forward=True).samples == 10


def test_the_order_of_whole_batches_and_their_number_are_in_the_hash() -> None:
    one, other = graph(7), graph(9)
    hashes = {fit(Graph(), given).sha256 for given in ([one, other], [other, one], [one, one], [one, one, one])}
    assert len(hashes) == 4


def test_labels_of_nodes_give_accuracy_and_unlabelled_ones_do_not_count() -> None:
    model = Graph().eval()
    batches = []
    for nodes in (7, 9, 12):
        inputs = graph(nodes)
        labels = model(*inputs).argmax(-1)
        labels[:3] = -100
        batches.append(Batch(inputs, labels=labels, whole=True))
    figures = {figure.name: figure.quantized for figure in evaluate(model, model, batches).figures}
    assert figures["accuracy"] == 1.0
    data = fit(model, batches)
    assert [int(batch.mask.sum()) for batch in data.batches if batch.mask is not None] == [4, 6, 9]


def test_lengths_give_a_mask_by_name_and_by_position() -> None:
    x, lengths = torch.randn(20, 9, 4), torch.arange(20) % 9 + 1
    expected = torch.arange(9) < lengths[:, None]
    for given in ((x, lengths), {"x": x, "x_lengths": lengths}):
        data = fit(Tagger(), given)
        (mask,) = [batch.mask for batch in data.batches]
        assert mask is not None
        assert torch.equal(mask, expected)
        assert "52% of the positions count, according to x_lengths; the others are padding" in data.description


def test_padding_by_lengths_changes_no_figure() -> None:
    model, lengths = Tagger().eval(), torch.arange(20) % 9 + 1
    x = torch.randn(20, 9, 4)
    noisy = torch.where((torch.arange(9) < lengths[:, None])[..., None], x, 1e3 * torch.randn(20, 9, 4))
    tables = [
        mpq.analyze(model, (given, lengths), candidates=("4",), quantizer="gptq", method="measure", metric="relative_mse")
        for given in (x, noisy)
    ]
    for pair, values in tables[0].errors.items():
        assert values == pytest.approx(tables[1].errors[pair], rel=1e-6)


class Standardized(nn.Module):
    """Divides by the spread of its batch, which a row alone does not have."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.a(x)
        found: Tensor = self.b((hidden - hidden.mean(0)) / hidden.std(0))
        return found


def test_rows_that_give_no_number_alone_are_no_samples() -> None:
    x = torch.randn(24, 6, generator=torch.Generator().manual_seed(1))
    data = fit_data([x[:8], x[8:16], x[16:]], model=from_module(Standardized().eval()), source="memory")
    assert [batch.whole for batch in data.batches] == [True] * 3


class Detector(nn.Module):
    """Takes a list with a dict for each image, or a tensor of all, and returns a dict for each."""

    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(6, 3)

    def forward(self, batch: Any) -> list[dict[str, Tensor]]:
        x = batch if isinstance(batch, Tensor) else torch.stack([each["x"] for each in batch])
        return [{"score": row} for row in self.l(x)]


def test_a_list_with_one_value_for_each_sample_has_one_row_for_each() -> None:
    data = fit(Detector(), torch.randn(5, 6))
    assert (data.samples, data.batches[0].listed, data.batches[0].whole) == (5, ("",), False)
    assert data.description == "5 samples of [6]; the model returns a list with one value for each sample; its tensors are stacked"
    assert not fit(nn.Linear(6, 3), torch.randn(5, 6)).batches[0].listed


class Inner(Detector):
    """Returns a list with a value for each sample within a dict, and one tensor for all."""

    def __init__(self, cut: Any = lambda row, length: row) -> None:
        super().__init__()
        self.cut = cut

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Any:
        rows = self.l(x)
        kept = [self.cut(row, rows.shape[1] if lengths is None else int(lengths[place])) for place, row in enumerate(rows)]
        return {"found": {"parts": kept}, "logits": rows.flatten(1)}


STACKED = "the model returns a list with one value for each sample; its tensors are stacked"
APART = "the model returns a list with one value for each sample; its values differ in shape, so samples run one at a time"


def test_a_list_within_a_dict_has_one_row_for_each_sample() -> None:
    for choice in ({}, {"batch_axis": 0}, {"seed_each_forward": True}):
        data = fit(Inner(), torch.randn(5, 6), **choice)
        assert [batch.listed for batch in data.batches] == [("found.parts",)]
        assert data.description.startswith(f"5 samples of [6]; {STACKED}")


def test_lists_are_found_where_every_batch_is_one_sample() -> None:
    data = fit(Inner(), [torch.randn(1, size, 6) for size in (3, 4, 5)])
    assert [(batch.listed, batch.size) for batch in data.batches] == [(("found.parts",), 1)] * 3
    assert data.description == f"3 samples of [3, 6] and 2 other shapes; {STACKED}"


@pytest.mark.parametrize(
    ("module", "rows", "passes", "listed"),
    [
        (nn.Linear(6, 3), 9, 1, ()),
        (nn.Linear(6, 3), 1, 1, ()),
        (Inner(), 9, 1 + 3 + 1, ("found.parts",)),
        (Inner(), 1, 1 + 1, ("found.parts",)),
    ],
)
def test_for_rows_that_are_samples_one_pass_tells_that_there_are_no_lists(
    module: nn.Module, rows: int, passes: int, listed: tuple[str, ...]
) -> None:
    seen = []
    module.register_forward_hook(lambda *_: seen.append(1))
    assert examine_lists(module, Batch((torch.randn(rows, 6),))) == Rows(listed=listed)
    assert len(seen) == passes


def test_values_whose_lengths_are_given_run_one_at_a_time() -> None:
    lengths = torch.tensor([3, 3, 2, 4, 3])
    data = fit(Inner(lambda row, length: row[:length]), {"x": torch.randn(5, 4, 6), "lengths": lengths})
    assert [(batch.listed, batch.size, int(batch.kwargs["lengths"])) for batch in data.batches] == [
        (("found.parts",), 1, int(length)) for length in lengths
    ]
    assert APART in data.description


def test_values_whose_shape_is_computed_from_numbers_are_refused_by_name() -> None:
    detector = Inner(lambda row, _: row[row > 0])
    data = fit(detector, torch.randn(8, 6))
    assert (data.batches[0].size, data.batches[0].listed) == (8, ())
    with pytest.raises(ModelError, match=r"output 'found\.parts\.0' belongs to a list with one value for each of 8 samples"):
        choose_comparison(detector.eval(), data.batches)


def test_rows_of_lists_that_influence_each_other_are_no_samples() -> None:
    class Mixed(Inner):
        def forward(self, x: Tensor, lengths: Tensor | None = None) -> Any:
            return super().forward(x + x.mean(0), lengths)

    for cut in (lambda row, _: row, lambda row, length: row[:length]):
        data = fit(Mixed(cut), [{"x": torch.randn(5, 1, 6), "lengths": torch.tensor([0, 1, 1, 0, 1])}] * 2)
        assert [batch.whole for batch in data.batches] == [True, True]


def test_a_list_of_dicts_may_be_one_argument_of_the_model() -> None:
    data = fit(Detector(), [[{"x": torch.randn(6)} for _ in range(4)] for _ in range(2)])
    assert (data.samples, len(data.batches[0].args)) == (2, 1)
    why = "it cannot be cut along axis 0 (the model does not accept fewer than 6 entries)"
    assert data.description == f"2 batches of 4 times [6]; one batch is one sample: {why}"
