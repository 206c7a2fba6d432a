from dataclasses import replace
from pathlib import Path

import pytest

from mpq.errors import FormatError
from mpq.records.equalization import Chain
from mpq.records.plan import read_plan, write_plan
from tests.records.test_plan import plan

CHAIN = Chain("conv.1", ("norm.weight", "norm.bias"), ("a: b.weight",), (0, -3, 16))


def test_a_plan_keeps_its_chains_one_line_for_each_fact(tmp_path: Path) -> None:
    write_plan(replace(plan(), equalization=(CHAIN, CHAIN)), tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml").equalization == (CHAIN, CHAIN)
    text = (tmp_path / "plan.yaml").read_text()
    assert text.startswith("mpq_plan: 3\n")
    assert (
        '\n- tensor: "conv.1"\n  multiplied: ["norm.weight", "norm.bias"]\n  divided: ["a: b.weight"]\n  exponents: [0, -3, 16]\n' in text
    )


def test_exponents_are_limited(tmp_path: Path) -> None:
    write_plan(replace(plan(), equalization=(CHAIN,)), tmp_path / "plan.yaml")
    (tmp_path / "plan.yaml").write_text((tmp_path / "plan.yaml").read_text().replace("16]", "17]"))
    with pytest.raises(FormatError, match=r"equalization\[0\]\.exponents\[2\] is 17: give a whole number of at most 16"):
        read_plan(tmp_path / "plan.yaml")
