"""A table with a common row, from the analysis to the running model, also if it is the head, too."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import mpq
from mpq.check.measure_size import weigh
from mpq.export.source import open_source
from mpq.formats.scheme import parse_scheme
from mpq.records.plan import Plan, read_plan, write_plan
from mpq.records.sensitivity import Sensitivity

ROWS, ALIKE, COLUMNS = 300, 200, 16


class Model(nn.Module):
    """A language model whose head is its table."""

    def __init__(self, *, alike: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.line = nn.Embedding(ROWS, COLUMNS), nn.Linear(COLUMNS, COLUMNS)
        self.head = nn.Linear(COLUMNS, ROWS, bias=False)
        self.head.weight = self.table.weight
        if alike:
            with torch.no_grad():
                self.table.weight[60 : 60 + ALIKE] = torch.randn(COLUMNS) * (1 + 0.001 * torch.randn(ALIKE, COLUMNS))

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.head(torch.relu(self.line(self.table(ids))))
        return found


SAMPLES = [torch.randint(0, ROWS, (8, 12), generator=torch.Generator().manual_seed(1))] * 3


def analyzed(model: nn.Module, path: Path | None = None, **choices: object) -> Sensitivity:
    options = {"candidates": ("4", "8", "16"), "quantizer": "mse", "method": "measure", **choices}
    return mpq.analyze(model, SAMPLES, output=path, **options)  # type: ignore[arg-type]


def planned(table: Sensitivity, text: str) -> Plan:
    return mpq.search(table, "100%").plan.with_layers({"table": parse_scheme(text), "line": parse_scheme("int8")})


@pytest.mark.parametrize("quantizer", ["rtn", "mse", "gptq", "descent"])
@pytest.mark.parametrize("text", ["int4", "int4-g8-s8", "fp16", "ec4"])
def test_the_common_row_is_stored_once_and_every_row_runs(tmp_path: Path, text: str, quantizer: str) -> None:
    model = Model().eval()
    plan = planned(analyzed(model, quantizer=quantizer), text)
    path = mpq.apply(model, plan, tmp_path / "a.mpq.safetensors", data=SAMPLES).path
    assert path.stat().st_size == plan.size.file_bytes
    parts = {name: tensor for name, tensor in load_file(path).items() if name.startswith("table.")}
    assert sum(tensor.nbytes for tensor in parts.values()) == parse_scheme(text).stored_bits((ROWS - ALIKE + 1, COLUMNS)) // 8 + 38
    loaded, packed = mpq.load(path, Model()), mpq.load(path, Model(), packed=True)
    with torch.no_grad():
        expected, found = (each(SAMPLES[0]) for each in (loaded, packed))
    assert torch.allclose(expected, found, atol=1e-4)
    state = loaded.state_dict()
    weight = state["table.weight"]
    assert torch.equal(weight[60 : 60 + ALIKE], weight[60:61].expand(ALIKE, -1))
    own = model.table.weight.detach()
    assert float((weight - own).norm() / own.norm()) < (0.001 if text == "fp16" else 0.25)
    assert torch.equal(state["head.weight"], weight)


def test_merging_is_part_of_the_measured_error() -> None:
    model = Model().eval()
    error = analyzed(model, candidates=("16",)).mean("table", parse_scheme("fp16"))
    with torch.no_grad():
        model.table.weight[60 : 60 + ALIKE] = model.table.weight[60 : 60 + ALIKE].double().mean(0).float()
    assert error > 2 * analyzed(model, candidates=("16",)).mean("table", parse_scheme("fp16"))


def test_the_plan_states_it_and_its_size_is_counted_without_the_model(tmp_path: Path) -> None:
    table = analyzed(Model().eval(), tmp_path / "t.jsonl")
    assert "200 of 300 rows of table are one common row (within" in " ".join(table.header.notes)
    plan = planned(table, "int4")
    write_plan(plan, tmp_path / "plan.yaml")
    assert "  table: 300x16/200  # 200 of the 300 rows are one common row, stored once\n" in (tmp_path / "plan.yaml").read_text()
    again = read_plan(tmp_path / "plan.yaml")
    assert (again.shapes, again.size) == (plan.shapes, plan.size)
    assert weigh(tmp_path / "plan.yaml").taken["table"] == parse_scheme("int4").stored_bits((101, 16)) // 8 + 38
    mpq.apply(Model().eval(), again, tmp_path / "a.mpq.safetensors", recovery=False)
    assert weigh(tmp_path / "a.mpq.safetensors").taken == weigh(tmp_path / "plan.yaml").taken


def test_an_analysis_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = analyzed(Model().eval(), tmp_path / "t.jsonl", method="fisher")
    lines = (tmp_path / "t.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "t.jsonl").write_bytes(b"".join(lines[:4]))
    again = analyzed(Model().eval(), tmp_path / "t.jsonl", method="fisher")
    assert again.header.layers == whole.header.layers
    assert all(again.errors[key].tolist() == errors.tolist() for key, errors in whole.errors.items())


def test_a_table_without_a_common_row_is_stored_as_ever(tmp_path: Path) -> None:
    table = analyzed(Model(alike=False).eval())
    assert all(not layer.alike and "alike" not in layer.to_dict() for layer in table.layers)
    assert "alike" not in table.header.settings
    plan = planned(table, "int4")
    assert plan.shapes["table"] == (ROWS, COLUMNS)
    assert plan.size.layer_bytes == sum(scheme.stored_bits(plan.shapes[name]) // 8 for name, scheme in plan.layers.items())


def test_other_programs_get_every_row(tmp_path: Path) -> None:
    model = Model().eval()
    path = mpq.apply(model, planned(analyzed(model), "int4"), tmp_path / "a.mpq.safetensors", recovery=False).path
    source = open_source(path)
    assert source.matrices["table"] == (ROWS, COLUMNS)
    weight = dict(source.weights())["table"]
    assert (weight.matrix, weight.common) == ((ROWS, COLUMNS), None)
    assert torch.equal(weight.dequantize(), mpq.load(path, Model()).state_dict()["table.weight"])
    assert source.rest().keys() == {"line.bias"}
    assert list(source.shared) == ["table"]


@pytest.mark.parametrize("method", ["measure", "fisher", "weight"])
def test_coded_formats_without_room_for_the_rows_that_are_stored_are_left_out(method: str) -> None:
    model = Model().eval()
    with torch.no_grad():
        model.table.weight.copy_(torch.randn(COLUMNS).expand(ROWS, COLUMNS))
    table = analyzed(model, candidates=("ec1", "ec4", "int4"), method=method)
    assert {name: [str(scheme) for scheme in schemes] for name, schemes in table.header.candidates.items()} == {
        "table": ["int4"],
        "line": ["ec4", "int4"],
    }
    assert "ec1, ec4 left out for 1 layer with too few weights for the code tables: table (16 weights)" in table.header.notes
