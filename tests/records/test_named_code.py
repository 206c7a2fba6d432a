from pathlib import Path

import pytest

from mpq.errors import TrustError
from mpq.records.named_code import named_factory, refuse_code

PLAN = Path("plan.yaml")


def test_a_model_without_code_needs_no_trust() -> None:
    assert named_factory({"path": "m.pt2"}, PLAN, trust=False) is None
    assert named_factory({"factory": None}, PLAN, trust=False) is None


def test_code_that_a_file_names_is_given_only_with_trust() -> None:
    assert named_factory({"factory": "my.models:make"}, PLAN, trust=True) == "my.models:make"
    with pytest.raises(TrustError) as caught:
        named_factory({"factory": "my.models:make"}, PLAN, trust=False)
    assert str(caught.value) == (
        "plan.yaml asks mpq to import and call my.models:make, which needs your permission: "
        "name it yourself with --builder my.models:make, or add --trust if you trust the file"
    )


def test_what_is_named_cannot_forge_a_line() -> None:
    with pytest.raises(TrustError) as caught:
        refuse_code("a:b\n::error::" + "x" * 500, PLAN)
    assert "\n" not in str(caught.value)
    assert "::error::" not in str(caught.value)
    assert len(str(caught.value)) < 250
    assert str(caught.value).endswith("add --trust if you trust the file")
