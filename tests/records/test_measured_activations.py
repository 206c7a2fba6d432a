"""What an analysis measured of tensors between layers, as lines of its file and as text."""

import math

from mpq.records.activations import ActivationGroup, RoundedTensor
from mpq.records.measured_activations import MeasuredGroup, activation_lines, groups_of, measured_group

GROUP = ActivationGroup("a8", (RoundedTensor(("conv.1", "add.0.1"), 0.02, 3), RoundedTensor(("add.0.0",), 0.5, 128)))
MEASURED = MeasuredGroup(
    "layer1",
    GROUP,
    ("layer1.conv",),
    1200,
    (0.5, 0.7, 0.9),
    methods=("mse", "minmax"),
    seen=((-1.0, 4.0), (0.0, 2.0)),
    counts=((1, 2, 3), (4, 5, 6)),
    costs=((0.0, 1e-5), (2e-5, 1e-5)),
)


def test_a_line_is_read_as_it_was_written() -> None:
    assert measured_group(MEASURED.to_line()) == MEASURED
    bare = MeasuredGroup("head", ActivationGroup("a8d", (RoundedTensor(("linear.0",)),)), (), 0, (0.25,))
    assert measured_group(bare.to_line()) == bare
    assert not {"methods", "costs"} & set(bare.to_line())


def test_the_mean_and_its_standard_error() -> None:
    assert math.isclose(MEASURED.mean, 0.7)
    assert math.isclose(MEASURED.stderr, 0.2 / math.sqrt(3))
    failed = MeasuredGroup("head", GROUP, (), 0, (0.5, None))
    assert failed.mean == math.inf
    assert math.isnan(failed.stderr)


def test_the_groups_alone() -> None:
    assert groups_of({"layer1": MEASURED}) == {"layer1": GROUP}
    assert MEASURED.readers == ["conv.1", "add.0.1", "add.0.0"]


def test_the_lines_name_the_worst_groups_and_the_self_check() -> None:
    assert activation_lines(None, {}) == activation_lines({"cost": {}}, {}) == []
    assert activation_lines({"activations": {"check": {}}}, {}) == ["activations: no tensor can be an integer"]
    finish = {"activations": {"check": {"a8": {"groups": 1, "together": 0.5, "sum": 0.7}}}}
    assert activation_lines(finish, {("layer1", "a8"): MEASURED}) == [
        "activations in a8: 1 group, all together have an error of 0.5; their single errors sum up to 0.7, 1.40 times as much",
        "activations with the largest errors: layer1 a8 0.7",
    ]
