import pytest
import torch

from mpq.export.fingerprint import kept_values
from mpq.records.fingerprint import Fingerprint, LayerFingerprint, OutputFacts
from mpq.verify.outputs import first_layer, output_differences

WANTED = torch.tensor([[1.0, -4.0, 2.0, -torch.inf]])


def fingerprint() -> Fingerprint:
    facts = OutputFacts("logits", [1, 4], 4.0, kept_values(WANTED))
    layers = {name: LayerFingerprint(name, "int4", [1, 1], output=[1.0, 2.0]) for name in ("a", "b")}
    return Fingerprint(1, "onnx", 0.01, [], [facts], layers)


@pytest.mark.parametrize(
    ("found", "share", "message"),
    [
        ([[1.0, -4.0, 2.0, -torch.inf]], 0.0, None),
        ([[1.0, -4.0, 2.02, -1e9]], 0.005, None),
        ([[1.0, -4.0, 3.0, -1e9]], 0.25, "differs by 0.25 of its largest value, more than the program's arithmetic explains (0.01)"),
        ([[1.0, -4.0, torch.nan, -1e9]], None, "values that should be finite are not, or the reverse"),
        ([[1.0, -4.0, 2.0]], None, "it has shape [1, 3], but should have [1, 4]"),
    ],
)
def test_an_output_differs_by_a_share_of_its_largest_value(found: list[list[float]], share: float | None, message: str | None) -> None:
    ((difference, finding),) = output_differences(fingerprint(), [torch.tensor(found)])
    assert difference.difference == (None if share is None else pytest.approx(share, rel=1e-5))
    assert (finding is None) == (message is None)
    if finding is not None and message is not None:
        assert finding.name == "logits"
        assert message in finding.message


def test_another_number_of_outputs_is_a_finding() -> None:
    ((difference, finding),) = output_differences(fingerprint(), [WANTED, WANTED])
    assert difference.difference is None
    assert finding is not None
    assert finding.message == "the program gives 2 outputs, but should give 1"


def test_the_first_layer_of_another_magnitude_is_named() -> None:
    found = first_layer(fingerprint(), {"a": (1.0, 2.01), "b": (1.5, 2.0)})
    assert found is not None
    assert (found.kind, found.name) == ("layer output", "b")
    assert found.message == "the first layer whose output differs, by 0.25 of its largest value"
    assert first_layer(fingerprint(), {"a": (1.0, 2.0)}) is None
