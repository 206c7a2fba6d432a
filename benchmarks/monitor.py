"""What `mpq.monitor` costs, what it finds, and how often it is wrong; each bar stands with its figure.

    python -m benchmarks.monitor --models DIR [--only cost memory images text shadow]

DIR holds cifar10/, stories15m/ and text/. Weights have 4 bits in groups of 32. Cost is CPU time of one thread, of a model with a monitor
and one without that take turns call by call. Images are single calls of ResNet-20, all of them sampled, with a look at the alarms every 20
calls and a restart every 500, as `append` does. The baseline is of 512 training images, on which the model is more certain than on test
images. Shifts are made here, five strengths each. Text is windows of 128 tokens.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import mpq
from benchmarks.quantizer_cases import normalized
from mpq.data.batch import Batch
from mpq.evidence.drift import ALPHA, Alarm, shadow_alarms
from mpq.evidence.running_mean import RunningMean
from mpq.formats.scheme import parse_scheme
from mpq.models.inputs.load_data import load_data
from mpq.models.layers.discover import discover
from mpq.models.layers.unquantized_tensors import inventory, source_of
from mpq.models.memory.peak import held_now
from mpq.models.sources.load import from_module, load_model
from mpq.models.sources.loaded import LoadedModel
from mpq.monitor.baseline import baseline_of
from mpq.monitor.watch import Monitor, monitor
from mpq.records.baseline import Baseline
from mpq.records.plan import plan_for

PARTS = ("cost", "memory", "images", "text", "shadow")
COST, SAMPLES, WINDOWS, FALSE, GROWTH = 0.02, 500, 200, 1, 2.0
WINDOW, LOOK, TOKENS, GROUP = 500, 20, 128, 100
STRENGTHS: dict[str, Sequence[float]] = {
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "noise": (0.04, 0.06, 0.08, 0.09, 0.1),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
}
"""As in CIFAR-10-C: added brightness, the blur's deviation in pixels, the noise's deviation, the factor of contrast."""


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS)
    chosen = parser.parse_args(given)
    torch.set_num_threads(1)
    for part in chosen.only:
        {"cost": cost, "memory": memory, "images": images, "text": text, "shadow": shadow}[part](chosen.models)


def verdict(name: str, found: float, bar: float) -> None:
    print(f"{name}: {found:.4g} (at most {bar:g}: {'yes' if found <= bar else 'NO'})", flush=True)


def resnet(models: Path) -> nn.Module:
    """The original ResNet-20, whose modules are called."""
    from safetensors.torch import load_file

    spec = importlib.util.spec_from_file_location("resnet20", models / "cifar10" / "resnet20.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    module: nn.Module = made.build()
    module.load_state_dict(load_file(models / "cifar10" / "resnet20.safetensors"))
    return module


def quantized(model: LoadedModel, batch: Batch, *, packed: bool = False) -> nn.Module:
    """The model with weights of 4 bits in groups of 32, rounded to nearest; tables have 8 bits."""
    layers = discover(model.module, [batch]).layers
    source = source_of(model, "memory")
    schemes = {layer.name: parse_scheme("int8-g32" if "embed" in layer.name else "int4-g32") for layer in layers}
    plan = plan_for(layers, schemes, model=source, quantizer="rtn", rest=inventory(model, layers, source=source, quantizer="rtn"))
    with tempfile.TemporaryDirectory() as folder:
        return mpq.load(mpq.apply(model, plan, Path(folder) / "model.mpq.safetensors").path, copy.deepcopy(model.module), packed=packed)


def calibration_of(models: Path) -> list[Batch]:
    """The 512 training images, one batch each, as they are served."""
    return [Batch((image,)) for image in torch.load(models / "cifar10" / "calibration.pt").split(1)]


def cost(models: Path) -> None:
    """Extra CPU time at the default sampling, of whole calls."""
    served = calibration_of(models)
    language = load_model(models / "stories15m")
    tokens = [Batch((torch.randint(3, 30_000, (1, TOKENS), generator=torch.Generator().manual_seed(seed)),)) for seed in range(16)]
    cases = (
        ("ResNet-20, one image", resnet(models), served, 80),
        ("stories15m, 128 tokens", language.module, tokens, 14),
        ("stories15m packed, 128 tokens", quantized(language, tokens[0], packed=True), tokens, 6),
    )
    for name, module, batches, groups in cases:
        with torch.no_grad():
            found, error, sampled = _extra(module, baseline_of(module, batches[:64]), batches, groups)
        print(f"  {name}: {groups * GROUP:,} calls each way, {sampled} of them sampled; standard error {error:.2%}")
        verdict(f"extra CPU time at sample=0.01, {name}", found, COST)


def _extra(module: nn.Module, baseline: Baseline, batches: list[Batch], groups: int) -> tuple[float, float, int]:
    """The extra CPU time of calls as a share, its standard error over pairs of groups of calls, and the number of sampled calls.

    Two copies of the model take turns call by call. The monitor is on the one in half of the groups and on the other in the other half,
    since copies alone differ by a percent; which one comes first changes with each call.
    """
    copies = module, copy.deepcopy(module)
    found, sampled = [], 0
    for group in range(-2, groups):
        plain, watched = copies if group % 2 else copies[::-1]
        with monitor(watched, baseline, seed=group) as watching:
            found.append(_turns(plain, watched, batches))
        sampled += watching.sampled if group >= 0 else 0
    found = found[2:]  # the first ones warm up
    without = statistics.mean(first for first, _ in found)
    ratios = [(second - first) / without for first, second in found]
    pairs = [(first + second) / 2 for first, second in zip(ratios[::2], ratios[1::2], strict=True)]
    return statistics.mean(pairs), statistics.stdev(pairs) / len(pairs) ** 0.5, sampled


def _turns(plain: nn.Module, watched: nn.Module, batches: list[Batch]) -> tuple[float, float]:
    """The CPU time of a group of calls of both models, in seconds."""
    taken = {plain: 0.0, watched: 0.0}
    for number in range(GROUP):
        batch = batches[number % len(batches)]
        for module in (plain, watched) if number % 2 else (watched, plain):
            start = time.process_time()
            module(*batch.args)
            taken[module] += time.process_time() - start
    return taken[plain], taken[watched]


def memory(models: Path) -> None:
    """Memory over a million calls of a tiny model."""
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    rows = torch.randn(64, 1, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), monitor(module, baseline_of(module, [Batch((row,)) for row in rows]), shadow=0.001, reference=module) as watching:
        held = []
        for part in range(10):
            for number in range(100_000):
                module(rows[number % 64])
            held.append(held_now() / 1e6)
            print(f"  {(part + 1) * 100_000:,} calls, {watching.sampled:,} sampled: {held[-1]:.1f} MB")
    verdict("growth of memory from 100,000 to 1,000,000 calls, MB", held[-1] - held[0], GROWTH)


def changed(images: Tensor, kind: str, strength: float) -> Tensor:
    """Images in [0, 1] with a shift."""
    if kind == "brightness":
        return (images + strength).clamp(0, 1)
    if kind == "noise":
        return (images + strength * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    if kind == "contrast":
        middle = images.mean((2, 3), keepdim=True)
        return ((images - middle) * strength + middle).clamp(0, 1)
    reach = torch.arange(-4, 5.0)
    kernel = (-(reach**2) / (2 * strength**2)).exp()
    kernel = (kernel / kernel.sum()).repeat(3, 1, 1)
    wide = functional.conv2d(functional.pad(images, (4, 4, 4, 4), mode="reflect"), kernel[:, :, None, :], groups=3)
    return functional.conv2d(wide, kernel[:, :, :, None], groups=3)


def images(models: Path) -> None:
    """Shifts of CIFAR-10, and false alarms on its 10,000 test images."""
    archive = np.load(models / "cifar10" / "cifar10.npz")
    pixels, labels = torch.from_numpy(archive["test_images"]).float() / 255, torch.from_numpy(archive["test_labels"]).long()
    calibration = calibration_of(models)
    model = quantized(from_module(resnet(models)), calibration[0])
    baseline = baseline_of(model, calibration)
    with torch.no_grad(), monitor(model, baseline, sample=1.0) as inside, monitor(model, baseline, sample=1.0, layers=()) as outside:
        both = (inside, outside)
        windows = [_window(both, model, window) for window in torch.split(normalized(pixels * 255), WINDOW)]
        for calls, alarms in (each for found in windows for each in found if each is not None):
            print(f"  false alarm after {calls} of 500: {'; '.join(alarm.line for alarm in alarms)}")
        for place, name in enumerate(("with layers", "inputs and outputs only")):
            wrong = sum(found[place] is not None for found in windows)
            verdict(f"windows of 500 among 10,000 test images with a false alarm, {name}", wrong, FALSE)
        print(f"  {'shift':12} {'strength':>8} {'accuracy':>8} {'found after':>11} {'without layers':>14}  first alarm")
        for kind, strength in ((kind, strength) for kind, strengths in STRENGTHS.items() for strength in strengths):
            _shifted(both, model, pixels[:WINDOW], labels[:WINDOW], kind, strength)


def _shifted(watching: Sequence[Monitor], model: nn.Module, pixels: Tensor, labels: Tensor, kind: str, strength: float) -> None:
    shifted = normalized(255 * changed(pixels, kind, strength))
    right = float((model(shifted).argmax(-1) == labels).float().mean())
    found = _window(watching, model, shifted)
    after = ["not" if each is None else str(each[0]) for each in found]
    first = next((each[1][0].line for each in found if each is not None), "none")
    print(f"  {kind:12} {strength:8g} {right:8.1%} {after[0]:>11} {after[1]:>14}  {first}", flush=True)


def _window(watching: Sequence[Monitor], model: nn.Module, served: Tensor) -> list[tuple[int, list[Alarm]] | None]:
    """For each monitor, the calls until its first alarm, and its alarms then; None if there was none. They start again."""
    found: list[tuple[int, list[Alarm]] | None] = [None] * len(watching)
    for each in watching:
        each.restart()
    for number, one in enumerate(torch.split(served, 1), start=1):
        model(one)
        if number % LOOK == 0:
            found = [old or ((number, now) if (now := each.alarms()) else None) for old, each in zip(found, watching, strict=True)]
            if all(found):
                break
    return found


def text(models: Path) -> None:
    """TinyStories, then WikiText."""
    model = load_model(models / "stories15m")
    stories, other = models / "text" / "tinystories.jsonl", models / "text" / "wikitext2_test.txt"
    sources = {"train": f"{stories}?split=train_head", "valid": f"{stories}?split=valid_piece", "other": str(other)}
    counts = {"train": 128, "valid": 200, "other": WINDOWS}
    windows = {name: list(_windows(model, source, counts[name])) for name, source in sources.items()}
    module = quantized(model, Batch((windows["train"][0],)))
    baseline = baseline_of(module, [Batch((window,)) for window in windows["train"]])
    with torch.no_grad(), monitor(module, baseline, sample=1.0) as watching:
        for name in ("valid", "other"):
            (found,) = _window([watching], module, torch.cat(windows[name]))
            print(f"  {name}: {len(windows[name])} windows; {f'found after {found[0]}: {found[1][0].line}' if found else 'no alarm'}")
            if name == "other":
                verdict("windows of WikiText until an alarm", found[0] if found else float("inf"), WINDOWS)


def _windows(model: LoadedModel, source: str, count: int) -> Iterator[Tensor]:
    for batch in load_data(source, model=model, seq_len=TOKENS, num_samples=count).batches:
        tokens = batch.args[0] if batch.args else batch.kwargs["input_ids"]
        yield from torch.split(tokens, 1)


def shadow(models: Path) -> None:
    """The bounds of shadowed calls: simulated calls without a change, and how many calls a change takes."""
    runs, draws = 400, np.random.default_rng(0)
    looks = _until(runs, 5000, partial(_drawn, draws, 0.05), _too_far)
    wrong = sum(calls is not None for calls in looks)
    verdict(f"share of {runs} runs of 5,000 calls at the limit itself with a false alarm, a look after each", wrong / runs, 10 * ALPHA)
    for factor in (2, 4):
        changed = _until(20, 20_000, partial(_drawn, draws, 0.05 * factor), _too_far)
        calls = statistics.median(calls or 20_000 for calls in changed)
        print(f"  KL {factor} times the limit of 0.05: found after {calls:.0f} shadowed calls (median of 20)")


def _drawn(draws: np.random.Generator, mean: float) -> float:
    return float(draws.exponential(mean))


def _too_far(mean: RunningMean) -> bool:
    return any(shadow_alarms(mean, RunningMean(), most_kl=0.05))


def _until(runs: int, most: int, value: Callable[[], float], alarmed: Callable[..., bool]) -> list[int | None]:
    """For each run, the calls until the first alarm."""
    found: list[int | None] = []
    for _ in range(runs):
        mean = RunningMean()
        for call in range(1, most + 1):
            mean.add(value())
            if alarmed(mean):
                found.append(call)
                break
        else:
            found.append(None)
    return found


if __name__ == "__main__":
    main()
