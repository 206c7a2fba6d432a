"""What the recipes of docs/cookbook.md start from: small stand-ins for the user's files."""

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from mpq.demo import write_demo

WORDS = ["<s>", "once", "upon", "a", "time", "there", "was", "cat", "dog", "and", "the", "end"]


def digits(folder: Path) -> None:
    """A CNN as a torch.export archive, calibration and test data."""
    write_demo("digits", folder)


def llama(folder: Path) -> None:
    """A Hugging Face folder with a random Llama and a tokenizer, and stories as JSONL."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(**sizes, vocab_size=len(WORDS), max_position_embeddings=32, initializer_range=0.2)
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "llama")
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>").save_pretrained(folder / "llama")
    stories = [" ".join(WORDS[1 + (seed * step) % (len(WORDS) - 1)] for step in range(64)) for seed in range(1, 13)]
    lines = [json.dumps({"split": "train" if number < 8 else "test", "text": text}) for number, text in enumerate(stories)]
    (folder / "stories.jsonl").write_text("\n".join(lines) + "\n")
