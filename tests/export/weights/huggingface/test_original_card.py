from pathlib import Path

import pytest

from mpq.export.weights.huggingface.original_card import original_facts


def facts(folder: Path, text: str) -> dict[str, object]:
    (folder / "README.md").write_text(text)
    return original_facts(folder)


def test_license_language_and_task_are_kept(tmp_path: Path) -> None:
    head = "license: other\nlicense_name: llama3\nlanguage: [en, de]\npipeline_tag: text-generation\nmodel-index: []\ntags: [a]\n"
    assert facts(tmp_path, f"---\n{head}---\ntext\n") == {
        "license": "other",
        "license_name": "llama3",
        "language": ["en", "de"],
        "pipeline_tag": "text-generation",
    }


@pytest.mark.parametrize(
    "text", ["", "# No head\n", "---\nlicense: [\n---\n", "---\n- a\n---\n", "---\nlicense: {a: b}\n---\n", "---\na: &x 1\nb: *x\n---\n"]
)
def test_a_head_that_says_nothing_usable_is_left_out(tmp_path: Path, text: str) -> None:
    assert facts(tmp_path, text) == {}


def test_a_folder_without_a_card_says_nothing(tmp_path: Path) -> None:
    assert original_facts(tmp_path) == {}
    assert original_facts(None) == {}
