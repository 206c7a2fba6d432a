"""torchao's quantization-aware training beside `benchmarks.recover`: the same samples, batches and number of steps, one integer scheme.

    python -m benchmarks.qat --models DIR [--bits 3] [--group 32] [--train 916] [--batch-size 4] [--epochs 6] [--rates 3e-4 1e-3 3e-3]

torchao fakes the quantization of all linear layers and of the embedding, which is tied to the head: weights alone, symmetric, fp32 scales
recomputed from the weights at each step. Rows of 172 weights have groups of 43, as torchao takes no shorter last group. The loss is the
KL divergence to the unquantized model. Adam, warm-up over a tenth of the steps, then a linear decay. The rate of the least error on the
samples that are kept aside counts; all are printed. torchao starts from the unquantized weights, as its documentation does; mpq starts
from the artifact of `mpq apply`.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torchao.quantization import quantize_
from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig

from benchmarks.quantizer_cases import case
from benchmarks.recover import training_data
from mpq.data.dataset import Data
from mpq.models.running.forward import forward
from mpq.models.running.metrics import KLDivergence
from mpq.models.running.reference import Reference
from mpq.recovery.training.schedule import share_at
from mpq.recovery.training.settings import ASIDE, MOST_ASIDE

_DTYPES: dict[int, torch.dtype] = {bits: getattr(torch, f"int{bits}") for bits in (2, 3, 4)}
_FAKED = (nn.Linear, nn.Embedding)


def main() -> None:
    """Train at each rate and print the errors."""
    options = _options()
    torch.set_num_threads(options.threads)
    setting = case("stories260k", options.models, encoder=None, samples=None, tests=None)
    data = training_data("stories260k", setting, options)
    used, aside = data.split(min(ASIDE, MOST_ASIDE / data.samples), 0)
    module = setting.model.module
    references = [Reference(module, part, KLDivergence()) for part in (used, aside, setting.test)]
    for rate in options.rates:
        began, student = time.process_time(), _faked(module, options.bits, options.group)
        before = _error(student, references[2])
        steps = _train(student, references[0], rate, options.epochs)
        errors = [_error(student, reference) for reference in references[1:]]
        seconds = time.process_time() - began
        print(
            f"torchao QAT int{options.bits}-g{options.group}, {steps} steps at {rate:g}: KL {before:.4f} -> {errors[1]:.4f} on the test, "
            f"{errors[0]:.4f} on samples kept aside, CPU s {seconds:.0f}",
            flush=True,
        )


def _faked(module: nn.Module, bits: int, group: int) -> nn.Module:
    student = copy.deepcopy(module)
    sizes = {name: _group(part.weight.shape[1], group) for name, part in student.named_modules() if isinstance(part, _FAKED)}
    for size in sorted(set(sizes.values())):
        weights = IntxFakeQuantizeConfig(_DTYPES[bits], group_size=size, is_symmetric=True)
        chosen = {name for name, own in sizes.items() if own == size}
        quantize_(student, QATConfig(weight_config=weights, step="prepare"), filter_fn=lambda _, name, chosen=chosen: name in chosen)
    return student


def _group(columns: int, wanted: int) -> int:
    """The smallest group, of the wanted size or more, that divides a row, as torchao needs."""
    return next(size for size in range(min(wanted, columns), columns + 1) if columns % size == 0)


def _train(student: nn.Module, reference: Reference, rate: float, epochs: int) -> int:
    parameters = list({id(parameter): parameter.requires_grad_() for parameter in student.parameters()}.values())
    adam = torch.optim.Adam(parameters, lr=rate, betas=(0.9, 0.99))
    count = len(reference.data.batches)
    for step in range(steps := epochs * count):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(step // count))
        index = int(order[step % count])
        with torch.enable_grad():
            loss = _errors(student, reference.data, index, reference, gradients=True).mean()
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.param_groups[0]["lr"] = rate * share_at(step, steps)
        adam.step()
    return steps


def _error(student: nn.Module, reference: Reference) -> float:
    found = [_errors(student, reference.data, index, reference) for index in range(len(reference.data.batches))]
    return float(torch.cat(found).mean())


def _errors(student: nn.Module, data: Data, index: int, reference: Reference, *, gradients: bool = False) -> Tensor:
    return reference.metric.errors(reference.prepared(index), forward(student, data.batches[index], gradients=gradients))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--bits", type=int, choices=_DTYPES, default=3)
    parser.add_argument("--group", type=int, default=32)
    parser.add_argument("--train", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-4, 1e-3, 3e-3])
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
