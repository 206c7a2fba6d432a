import json
import math

import pytest

from mpq.records.evaluation import Evaluation, Figure

FIGURES = (Figure("kl_divergence", 0.25, stderr=0.5), Figure("accuracy", 0.5, 0.75), Figure("perplexity", math.inf, 3.0))


def test_a_figure_is_found_by_its_name() -> None:
    assert Evaluation(FIGURES, 8, "data.pt")["accuracy"].reference == 0.75


def test_an_unknown_figure_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="bleu"):
        Evaluation(FIGURES, 8, "data.pt")["bleu"]


def test_the_frame_has_a_row_per_figure() -> None:
    frame = Evaluation(FIGURES, 8, "data.pt").frame()
    assert list(frame.columns) == ["name", "reference", "quantized", "stderr"]
    assert frame["name"].tolist() == ["kl_divergence", "accuracy", "perplexity"]


def test_the_json_object_holds_null_for_what_is_not_finite_or_not_there() -> None:
    found = Evaluation(FIGURES, 8, "data.pt").to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == {
        "samples": 8,
        "source": "data.pt",
        "figures": [
            {"name": "kl_divergence", "reference": None, "quantized": 0.25, "stderr": 0.5},
            {"name": "accuracy", "reference": 0.75, "quantized": 0.5, "stderr": None},
            {"name": "perplexity", "reference": 3.0, "quantized": None, "stderr": None},
        ],
    }


def test_an_evaluation_is_one_line_or_a_small_page() -> None:
    found = Evaluation((Figure("kl_divergence", 0.5, stderr=0.25), Figure("accuracy", 0.75, 1.0)), 8, "test<1>.pt")
    assert repr(found) == "<Evaluation of 8 samples: kl_divergence 0.5, accuracy 0.75>"
    page = found._repr_html_()
    assert "test&lt;1&gt;.pt" in page
    assert "0.5 ±0.25" in page
    many = Evaluation(tuple(Figure(f"output{number}.cosine", 1.0) for number in range(500)), 8, "test.pt")
    assert len(repr(many)) < 300
    assert len(many._repr_html_()) < 4000
