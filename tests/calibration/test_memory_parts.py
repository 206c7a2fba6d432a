from mpq.calibration.memory_parts import experts, memory_parts, too_wide, wide_lines
from mpq.records.layer import Layer
from mpq.tensors.quantizers.gptq import Descent
from mpq.tensors.quantizers.rtn import RoundToNearest
from tests.small import linear


def test_a_part_takes_as_many_consecutive_layers_as_fit_and_at_least_one() -> None:
    layers = [linear("a", 4, 10), linear("b", 4, 10), linear("c", 4, 30), linear("d", 4, 10)]
    named = [[layer.name for layer in part] for part in memory_parts(layers, 2 * 8 * 10**2)]
    assert named == [["a", "b"], ["c"], ["d"]]
    assert list(memory_parts([], 1)) == []


def test_a_weight_of_three_dimensions_that_is_multiplied_holds_a_matrix_for_each_expert() -> None:
    assert experts(linear("a", 4, 10)) == 1
    assert experts(Layer("e", ("e",), (5, 4, 10), (0, 1), "float32", "matmul", ("e",))) == 5


def test_rows_that_would_take_too_much_memory_are_refused_with_the_figures() -> None:
    assert too_wide(linear("a", 4, 23_000)) == ""
    assert too_wide(linear("a", 4, 65_536)) == "rows of 65,536 weights would take 34.4 GB of statistics, and 4.3 GB are allowed"


def test_layers_that_are_too_wide_for_the_quantizers_usual_way_are_named_together() -> None:
    layers = [linear("a", 4, 16_384), linear("b", 64, 64), linear("c", 4, 16_384), linear("d", 4, 65_536)]
    (line,) = wide_lines(Descent(), layers)
    reason = "factorizing their second moment would take 3e+13 operations"
    assert line.startswith(f"rows of 16,384 weights: descent starts from the nearest codes, because {reason}")
    assert line.endswith(": a, c")
    assert wide_lines(RoundToNearest(), layers) == []
