"""The model "mpq" of lm-evaluation-harness: an exported folder, or an artifact, with its layers packed.

    lm_eval.simple_evaluate(model="mpq", model_args={"pretrained": "llama-huggingface"}, tasks=["arc_easy"])
    python -m mpq.integrations.lm_eval_model --model mpq --model_args pretrained=llama-huggingface --tasks arc_easy

The harness finds models in its own registry, not by entry points, so its command line does not know mpq; the second line runs that command
line with mpq registered.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lm_eval.models.huggingface import HFLM

from mpq.errors import UsageError
from mpq.records.artifact_files import is_index, read_header
from mpq.runtime.load import load


class MpqLM(HFLM):  # type: ignore[misc]
    """The harness's own model for Transformers, on an artifact.

    Args:
        pretrained: an exported folder; an artifact of a Hugging Face model, or its index; or any model that the harness takes.
        tokenizer: folder or name of the tokenizer; required for an artifact, which has none.
        options: options of the harness's model.

    Raises:
        UsageError: if an artifact comes without a tokenizer.
    """

    def __init__(self, pretrained: Any, tokenizer: Any = None, **options: Any) -> None:
        path = Path(str(pretrained))
        if path.name.endswith((".mpq.safetensors", ".mpq.safetensors.index.json")) or (
            is_index(path) and not (path / "config.json").exists()
        ):
            if tokenizer is None:
                raise UsageError(f"{path} holds no tokenizer: add tokenizer=FOLDER, or export it with `mpq export --to huggingface`")
            pretrained = load(path, packed=not read_header(path).activations)  # integer activations are simulated with dense layers
        super().__init__(pretrained=pretrained, tokenizer=tokenizer, **options)


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
