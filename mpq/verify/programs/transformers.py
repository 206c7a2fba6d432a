"""Transformers: folders of compressed-tensors, and what it reports of tensors that it did not load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mpq.distribution import requirement
from mpq.errors import TrustError, UsageError
from mpq.export.stored.base import Held
from mpq.export.stored.compressed_tensors import config_of, groups_of, held_by, read
from mpq.models.running.forward import main_output
from mpq.models.running.layer_outputs import magnitude
from mpq.records.fingerprint import Fingerprint
from mpq.verify.findings import Finding
from mpq.verify.places import places_of
from mpq.verify.programs.base import Loaded, Program, floats, imported

_INSTALL = requirement("compressed-tensors")


class Transformers(Program):
    """Loads the output of `mpq export --to compressed-tensors`."""

    targets = ("compressed-tensors",)
    packages = (("transformers", _INSTALL), ("compressed_tensors", _INSTALL), ("accelerate", _INSTALL))

    def load(self, path: Path, fingerprint: Fingerprint, *, trust: bool) -> Loaded:
        """Load the folder with `from_pretrained`."""
        config = config_of(path)
        if config.get("auto_map") and not trust:
            raise TrustError(f"{path} contains its own code (auto_map), which would run when loaded: use --trust if you trust it")
        transformers = imported("transformers", _INSTALL)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        names = config.get("architectures") or [""]
        kind = getattr(transformers, str(names[0]), None)
        if kind is None or not hasattr(kind, "from_pretrained"):
            raise UsageError(f"{path} is a model of class {names[0]}, which Transformers does not have")
        model, report = kind.from_pretrained(path, dtype="auto", output_loading_info=True, local_files_only=True, trust_remote_code=trust)
        return _Model(path, model.eval(), report, fingerprint)


class _Model(Loaded):
    def __init__(self, path: Path, model: nn.Module, report: Mapping[str, Any], fingerprint: Fingerprint) -> None:
        self._model, self._places = model, {facts.place for facts in fingerprint.layers.values()}
        places = places_of(fingerprint)
        state = {name: tensor for name, tensor in model.state_dict().items() if name not in report["missing_keys"]}
        loaded = held_by(state, groups_of(path), places)
        self.held = Held(loaded.weights, read(path, places).tensors)
        self.findings = [*_not_loaded(report), *_untied(model, fingerprint.ties)]

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return floats(pytree.tree_leaves(main_output(self._model(*inputs))[1]))

    def used(self, place: str) -> Tensor | None:
        """The weight that the model has after its first call, which unpacks it."""
        found = dict(self._model.named_parameters(remove_duplicate=False)).get(f"{place}.weight")
        return None if found is None else found.detach().reshape(len(found), -1)

    def layer_outputs(self, inputs: Sequence[Tensor]) -> dict[str, tuple[float, float]]:
        found: dict[str, tuple[float, float]] = {}

        def keep(place: str, output: Any) -> None:
            found.setdefault(place, magnitude(output))

        hooks = [
            module.register_forward_hook(lambda _, __, output, place=name: keep(place, output))
            for name, module in self._model.named_modules()
            if name in self._places
        ]
        self.run(inputs)
        for hook in hooks:
            hook.remove()
        return found


def _not_loaded(report: Mapping[str, Any]) -> Iterator[Finding]:
    """The tensors that Transformers reports as not loaded."""
    for name in sorted(report.get("missing_keys") or ()):
        yield Finding("tensor missing", str(name), "it is not in the file: Transformers initialized it randomly")
    for name in sorted(report.get("unexpected_keys") or ()):
        yield Finding("tensor missing", str(name), "it is in the file, but Transformers does not load it")
    for entry in sorted(map(str, report.get("mismatched_keys") or ())):
        yield Finding("shape", entry, "Transformers did not load it, because its shape differs from the model's")


def _untied(model: nn.Module, ties: Mapping[str, str]) -> Iterator[Finding]:
    """Tied tensors that are separate in the loaded model."""
    tensors = dict(model.named_parameters(remove_duplicate=False))
    for name, other in ties.items():
        if name in tensors and other in tensors and tensors[name].data_ptr() != tensors[other].data_ptr():
            yield Finding("tie lost", name, f"it is a separate tensor, but should be '{other}'")
