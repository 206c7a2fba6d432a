from mpq.export.weights.huggingface.results import Result, evaluated, held_out, model_index
from mpq.records.plan import Plan
from tests.small import REST, schemes

LAYERS = {"a": schemes("int4")[0]}


def plan(**evidence: object) -> Plan:
    bare = Plan({"sha256": "a" * 64}, None, "rtn", LAYERS, {"a": (4, 32)}, 512, REST, data={"source": "../text.jsonl"})
    assignment = {"assignment": bare.assignment} if "assignment" not in evidence else {}
    return Plan(**{**vars(bare), "evidence": {**assignment, **evidence}})


MEASURED = {"held_out": 0.25, "held_out_stderr": 0.5, "samples": {"held_out": 6}}


def test_the_held_out_error_of_a_plan_says_that_it_was_chosen_by() -> None:
    name = "mse to the original, on samples that helped to choose the plan"
    assert held_out(plan(metric="mse", measured=MEASURED)) == [Result("text.jsonl, 6 held-out samples", "mse", name, 0.25, 0.5)]


def test_evidence_of_other_schemes_or_none_gives_no_result() -> None:
    assert held_out(plan(metric="mse", measured=MEASURED, assignment="0" * 12)) == []
    assert held_out(plan()) == []


def test_an_evaluation_gives_its_numbers() -> None:
    figures = [
        {"name": "kl_divergence", "reference": None, "quantized": 0.5, "stderr": 0.1},
        {"name": "perplexity", "reference": 6.0, "quantized": 7.0, "stderr": None},
        {"name": "kl_max", "reference": None, "quantized": None, "stderr": None},
    ]
    found = evaluated({"samples": 8, "source": "/home/me/test.pt", "figures": figures})
    assert found == [
        Result("test.pt, 8 samples", "kl_divergence", "kl_divergence", 0.5, 0.1, None),
        Result("test.pt, 8 samples", "perplexity", "perplexity", 7.0, None, 6.0),
    ]


def test_results_on_one_dataset_are_one_entry() -> None:
    results = [Result("a", "x", "X", 1.0, 0.5), Result("b", "y", "Y", 2.0), Result("a", "z", "Z", 3.0, None, 4.0)]
    assert model_index("name", "fill-mask", results) == [
        {
            "name": "name",
            "results": [
                {
                    "task": {"type": "fill-mask"},
                    "dataset": {"type": "mpq", "name": "a"},
                    "metrics": [
                        {"type": "x", "name": "X", "value": 1.0, "args": {"stderr": 0.5}},
                        {"type": "z", "name": "Z", "value": 3.0, "args": {"reference": 4.0}},
                    ],
                },
                {
                    "task": {"type": "fill-mask"},
                    "dataset": {"type": "mpq", "name": "b"},
                    "metrics": [{"type": "y", "name": "Y", "value": 2.0}],
                },
            ],
        }
    ]
