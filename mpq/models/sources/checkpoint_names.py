"""Ways to map the names of a checkpoint to those of a module: without the parts that wrappers add, and with or without a shared prefix.

Wrappers add a part anywhere in a name: `_orig_mod` (torch.compile), `module` (DataParallel, DistributedDataParallel and averaged models),
`_fsdp_wrapped_module` (FSDP), `_checkpoint_wrapped_module` (activation checkpointing). Prefixes come from the object that contained the
module: `model` in Lightning, `generator` next to a discriminator, `ema_model` in averages. This file only proposes mappings; the module's
load_state_dict decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

_WRAPPERS = frozenset(("_orig_mod", "module", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module"))
_DEPTH = 4
_TRIED = 8


@dataclass(frozen=True)
class Naming:
    """One way to read names.

    Args:
        prefix: only names below it are read; empty for all.
        names: the module's name by the checkpoint's name, for the names that are read.
    """

    prefix: str
    names: dict[str, str]


def bare(name: str) -> str:
    """A name without the parts that wrappers add; its last part is never one of them."""
    *path, last = name.split(".")
    return ".".join([*(part for part in path if part not in _WRAPPERS), last])


class Namings:
    """Proposals for one module.

    Args:
        tensors: names in the module's state dict.
        modules: paths of all modules in it, including the empty path of the root.
    """

    def __init__(self, tensors: Sequence[str], modules: Iterable[str]) -> None:
        self._tensors = {bare(name): name for name in tensors}
        paths = sorted(modules, key=len)  # if two paths differ by a wrapper, the inner module has the tensors
        self._modules = {bare(f"{path}.x")[:-2]: path for path in paths}

    def of(self, names: Sequence[str]) -> Iterator[Naming]:
        """Ways to read `names`, each once, those with the fewest changes first."""
        found: list[Naming] = []
        for naming in self._proposed(names):
            distinct = len(set(naming.names.values())) == len(naming.names)
            if distinct and naming.names and naming.names not in [each.names for each in found]:
                found.append(naming)
                yield naming

    def below(self, prefix: str, names: Sequence[str]) -> Naming:
        """The names below `prefix`, read without it."""
        start = f"{prefix}." if prefix else ""
        return Naming(prefix, {name: self._placed(bare(name).removeprefix(start)) for name in names if bare(name).startswith(start)})

    def _proposed(self, names: Sequence[str]) -> Iterator[Naming]:
        yield Naming("", {name: name for name in names})
        yield self.below("", names)
        for prefix in self._prefixes(names):
            yield self.below(prefix, names)
        for prefix in self._shared():
            yield Naming("", {name: self._placed(f"{prefix}.{bare(name)}") for name in names})

    def _placed(self, name: str) -> str:
        """The module's name for a name without wrappers: the tensor's own, else below the innermost matching module."""
        if name in self._tensors:
            return self._tensors[name]
        parts = name.split(".")
        for length in range(len(parts) - 1, -1, -1):
            path = self._modules.get(".".join(parts[:length]))
            if path is not None:
                return ".".join([*([path] if path else []), *parts[length:]])
        return name

    def _prefixes(self, names: Sequence[str]) -> list[str]:
        """Prefixes below which names match modules of this one, those with most names first."""
        hits: Counter[str] = Counter()
        for name in names:
            parts = bare(name).split(".")
            for length in range(1, min(_DEPTH + 1, len(parts))):
                rest = parts[length:]
                if ".".join(rest) in self._tensors or (len(rest) > 1 and ".".join(rest[:-1]) in self._modules):
                    hits[".".join(parts[:length])] += 1
        return [prefix for prefix, _ in hits.most_common(_TRIED)]

    def _shared(self) -> list[str]:
        """Prefixes that all tensors of the module share."""
        split = [name.split(".")[:-1] for name in self._tensors]
        shared: list[str] = []
        for parts in zip(*split, strict=False):
            if len(set(parts)) > 1 or len(shared) == _DEPTH:
                break
            shared.append(".".join([*shared[-1:], parts[0]]))
        return shared
