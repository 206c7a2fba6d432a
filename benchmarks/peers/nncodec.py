"""NNCodec at several steps, to be compared with `benchmarks.coded`: bytes of the whole bitstream, and the error on test data.

    python -m benchmarks.peers.nncodec --models DIR [--only stories260k resnet20] [--qp -30 -24] [--work FOLDER]

DIR is as for `benchmarks.coded`, and so are the bits: those of the whole stream for each weight of a layer. No data is used. Everything is
kept in FOLDER, so a second call goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.peers.__main__ import NNCODEC
from benchmarks.peers.base import Peer, run
from benchmarks.quantizer_cases import Judge, case
from mpq.models.layers.discover import discover
from mpq.models.layers.state_tensors import state_of, tied_names


def main() -> None:
    """Print a line per model and step."""
    options = _options()
    for name in options.only:
        for line in lines_of(name, options):
            print(line, flush=True)


def lines_of(name: str, options: argparse.Namespace) -> Iterator[str]:
    """The lines of one model."""
    setting = case(name, options.models, encoder=options.encoder, samples=None, tests=None)
    module, work = setting.model.module, options.work.resolve() / name
    work.mkdir(parents=True, exist_ok=True)
    save_file(floats(module), work / "model.safetensors")
    weights = sum(layer.weights for layer in discover(module, setting.calibration.batches[:1]).layers)
    judge = Judge(setting)
    for qp in options.qp:
        peer = Peer(f"nncodec-qp{qp}", NNCODEC.worker, NNCODEC.packages, (str(qp),), whole=True, alone=NNCODEC.alone)
        found = run(peer, work, work, options.work.resolve(), output=work / peer.name)
        error, quality = judge(found.weights)
        figures = f"error {error:.4g}  {setting.quality} {quality:.4f}  {found.seconds:.0f} s"
        yield f"{name:11} qp {qp:>3}  {found.bytes:>9,} bytes  {8 * found.bytes / weights:7.4f} bits  {figures}"


def floats(module: nn.Module) -> dict[str, Tensor]:
    """The floating-point tensors of a module's state, float32, each under the first of its names."""
    state = state_of(module)
    named = {names[0]: state[names[0]] for names in tied_names(state)}
    return {name: tensor.detach().float().contiguous() for name, tensor in named.items() if tensor.is_floating_point()}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--only", nargs="+", default=["stories260k", "resnet20"])
    parser.add_argument("--qp", nargs="+", type=int, default=[-34, -32, -30, -28, -26, -24, -22, -20])
    parser.add_argument("--work", type=Path, default=Path("peers-work"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
