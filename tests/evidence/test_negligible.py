import numpy as np

from mpq.evidence.negligible import NEGLIGIBLE, negligible
from mpq.formats.scheme import Scheme
from mpq.records.layer import Layer
from mpq.records.sensitivity import Sensitivity
from tests.small import linear, schemes, table

INT4, INT8 = schemes("int4", "int8")
LAYERS = [linear("a", 4, 32), linear("b", 2, 64)]


def made(small: float, samples: int = 8) -> tuple[Sensitivity, list[tuple[Layer, Scheme]]]:
    noise = np.linspace(-1e-6, 1e-6, samples)
    found = table(
        LAYERS,
        {
            "a": {"int4": [1.0] * samples, "int8": (small + noise).tolist()},
            "b": {"int4": [3.0] * samples, "int8": [0.1] * samples},
        },
    )
    return found, [(layer, scheme) for layer in LAYERS for scheme in (INT4, INT8)]


def test_an_error_far_below_the_median_of_the_largest_ones_is_negligible() -> None:
    found, pairs = made(0.9 * NEGLIGIBLE * 2.0)
    assert negligible(found, pairs, 8, 32) == {(LAYERS[0], INT8)}
    assert negligible(found, pairs[:1], 8, 32) == set()


def test_an_error_whose_noise_reaches_the_limit_is_not() -> None:
    found, pairs = made(0.9999999 * NEGLIGIBLE * 2.0)
    assert negligible(found, pairs, 8, 32) == set()


def test_nothing_is_before_a_quarter_of_the_samples_or_eight() -> None:
    found, pairs = made(0.0)
    assert negligible(found, pairs, 8, 33) == set()
    few, pairs = made(0.0, samples=7)
    assert negligible(few, pairs, 7, 16) == set()


def test_a_sample_whose_output_is_not_finite_keeps_a_pair() -> None:
    found, pairs = made(0.0)
    found.errors["a", INT8][3] = np.nan
    assert negligible(found, pairs, 8, 32) == set()
