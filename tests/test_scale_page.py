"""The page on large models: its job files are read by what runs them, and its table follows from the costs that it states."""

import re
import shutil
import subprocess

import pytest
import yaml

from tests import documents
from tests.cli.typed import ROOT

PAGE = ROOT / "docs" / "scale.md"
BLOCKS = documents.blocks(PAGE)
_ROW = r"^\| ([\d.]+) B \| ([\d.]+) GB \| ([\d.]+) h(?: \(measured\))? \| ([\d.]+ \w+) \| ([\d.]+ \w+) \| ([\d.]+ \w+) \|$"
_SECONDS = {"s": 1, "min": 60, "h": 3600}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("text", [text for language, text in BLOCKS if language == "sh"])
def test_scripts_are_read_by_the_shell(text: str) -> None:
    assert subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True).stderr == ""


def test_the_slurm_script_asks_for_what_it_uses() -> None:
    (script,) = [text for _, text in BLOCKS if "#SBATCH" in text]
    asked = dict(re.findall(r"#SBATCH --([\w-]+)=(\S+)", script))
    processes, threads = (int(found[1]) for found in re.findall(r"(nproc-per-node |OMP_NUM_THREADS=)(\d+)", script)[::-1])
    assert (asked["nodes"], int(asked["cpus-per-task"])) == ("2", processes * threads)


def test_the_kubernetes_job_gives_each_completion_a_part() -> None:
    (text,) = [text for language, text in BLOCKS if language == "yaml"]
    job = yaml.safe_load(text)
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert (job["apiVersion"], job["kind"], spec["completionMode"]) == ("batch/v1", "Job", "Indexed")
    assert f"--part $((JOB_COMPLETION_INDEX + 1))/{spec['completions']} " in container["args"][0]
    mounts = {each["name"] for each in container["volumeMounts"]}
    assert mounts == {each["name"] for each in spec["template"]["spec"]["volumes"]}


@pytest.mark.parametrize("row", re.findall(_ROW, PAGE.read_text(), re.MULTILINE))
def test_the_table_follows_from_the_costs(row: tuple[str, ...]) -> None:
    weights, gigabytes, hours, *divided = row
    count, tokens, schemes = float(weights) * 1e9, 16 * 128, 5
    alone, descent = 0.108e-6 * count * (3 + 6 * tokens / 1000), 1e-6 * count * schemes
    assert float(gigabytes) == 2 * float(weights)
    assert float(hours) == pytest.approx(alone / 3600, rel=0.03)
    expected = alone / 8, alone / 64, (alone + descent) / 64
    for text, seconds in zip(divided, expected, strict=True):
        number, unit = text.split()
        assert float(number) * _SECONDS[unit] == pytest.approx(seconds, rel=0.15)


def test_all_sizes_are_in_the_table() -> None:
    assert [row[0] for row in re.findall(_ROW, PAGE.read_text(), re.MULTILINE)] == ["1.1", "8", "70", "405"]
