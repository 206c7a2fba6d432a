"""Every reader of mpq, with files to mutate. A reader reads, and then uses what it has read as a command would.

The only file here that names readers of mpq: where one moves, this file changes.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults import mutators
from benchmarks.faults.mutators import Mutate
from benchmarks.faults.world import FACTORY, World, mpq

Read = Callable[[Path], object]
"""Reads a file and uses it; gives an exit code, or anything else."""


@dataclass(frozen=True)
class Reader:
    """One reader.

    Args:
        name: of the reader.
        samples: files of the world that are mutated; all of one kind.
        read: what is called with the mutated file.
        mutate: beside mutations of bytes.
        beside: files of the world that are linked into the folder.
        place: where the mutated file goes, relative to the folder; None takes the sample's own name.
    """

    name: str
    samples: tuple[str, ...]
    read: Read
    mutate: Mutate | None = None
    beside: tuple[str, ...] = ()
    place: str | None = None

    def prepare(self, world: World, folder: Path) -> None:
        """Put what the reader needs into its folder."""
        for name in self.beside:
            source, target = world.path(name), folder / name
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copy(source, target)

    def mutated(self, world: World, seed: str, generator: Any) -> tuple[str, bytes]:
        """The place and the content of one mutated file."""
        sample = generator.choice(self.samples)
        content = world.path(sample).read_bytes()
        by_tree = self.mutate is not None and generator.random() < 0.6
        made = self.mutate(content, generator) if by_tree and self.mutate is not None else mutators.mutate_bytes(content, generator)
        return self.place or Path(sample).name, made


def _config(path: Path) -> int:
    from mpq.cli.options import merged
    from mpq.config import AnalysisSettings, settings_from
    from mpq.errors import MpqError

    try:
        settings_from(AnalysisSettings, {k: v for k, v in merged("analyze", path, {}).items() if k != "num_samples"})
        merged("check", path, {})
    except MpqError:
        pass
    return mpq(["search", "model.sensitivity.jsonl", "--budget", "5bits", "--trials", "0", "--config", str(path), "-o", "found.yaml"])


def _budgets(path: Path) -> int:
    code = mpq(["check", "--budgets", str(path)])
    return 0 if code == 1 else code


def _index(path: Path) -> int:
    return mpq(["show", str(path)]) or _loaded(path)


def _artifact(path: Path) -> int:
    return mpq(["show", str(path)]) or _checked(path) or _loaded(path)


def _checked(path: Path) -> int:
    """The exit code of a check; that it says no is no fault."""
    code = mpq(["check", str(path), "--budget", "5bits"])
    return 0 if code == 1 else code


def _loaded(path: Path) -> int:
    import mpq as library

    library.load(path)
    return 0


def _plan(path: Path) -> int:
    worst = max(_checked(path), mpq(["export", str(path), "--to", "gptqmodel", "-o", "exported.json", "--nearest"]))
    return mpq(["show", str(path)]) or worst


def _sensitivity(path: Path) -> int:
    found = mpq(["search", str(path), "--budget", "5bits", "--trials", "0", "-o", "found.yaml"])
    return mpq(["show", str(path)]) or found


def _journal(path: Path) -> int:
    from benchmarks.faults.tables import FakeMeasurer
    from mpq.records.sensitivity import read_sensitivity
    from mpq.search.run import search

    source = Path("model.sensitivity.jsonl")
    table = read_sensitivity(source)
    search(table, "5bits", measurer=FakeMeasurer(table), trials=2, storage=storage_beside(source))
    return 0


def storage_beside(source: Path, url: str | None = None) -> Any:
    """The storage of the studies of a sensitivity file, or the one at `url`."""
    from mpq.search.storage import open_storage

    return open_storage(url, beside=source)


def trials_in(storage: Any) -> list[dict[str, Any]]:
    """What a storage holds of each trial of its studies: number, state, value and the facts that mpq keeps."""
    import optuna

    found = []
    for study in storage.get_all_studies():
        for trial in storage.get_all_trials(study._study_id):
            value = trial.value if trial.state == optuna.trial.TrialState.COMPLETE else None
            found.append({"number": trial.number, "state": trial.state.name, "value": value, "facts": dict(trial.user_attrs)})
    return found


def _start(path: Path) -> object:
    from mpq.cli.search_job import starting_schemes

    return starting_schemes(path, _table())


def _costs(path: Path) -> int:
    return mpq(["search", "model.sensitivity.jsonl", "--budget", "5bits", "--trials", "0", "--cost", f"{path}=3.2", "-o", "found.yaml"])


def _model(path: Path) -> object:
    import mpq as library

    return library.load_model(path)


def _directory(path: Path) -> object:
    return _model(path.parent)


def _state(path: Path) -> object:
    import mpq as library

    return library.load_model(path, factory=FACTORY)


def _data(path: Path) -> object:
    import mpq as library

    return library.load_data(str(path), model=_small())


def _text(path: Path) -> object:
    import mpq as library

    # Seeded calls need no examination of rows, so that the file is attacked and the model is not called.
    return library.load_data(str(path), model=_tiny(), seq_len=4, seed_each_forward=True)


def _images(path: Path) -> object:
    import mpq as library

    return library.load_data(str(path.parents[1]), model=_small())


def _fingerprint(path: Path) -> object:
    from mpq.records.fingerprint import read_fingerprint

    return read_fingerprint(Path("exported.pt2"), path)


def _evaluated(path: Path) -> int:
    from mpq.records.evaluation_file import read_evaluation

    read_evaluation(path)
    return mpq(["report", "plan.yaml", "-o", "found.html"])


def _monitored(path: Path) -> int:
    log, baseline = (path, "model.mpq.safetensors") if path.name.endswith("jsonl") else ("watched.jsonl", str(path))
    code = mpq(["monitor", "check", str(log), "--against", baseline])
    return 0 if code == 1 else code


def _kept(path: Path) -> object:
    from mpq.models.memory.store import Folder, Store

    return Store(Folder(path.parent)).get("key", 1 << 20)


def _resumed(path: Path) -> object:
    from mpq.recovery.training.checkpoints import Checkpoints

    return Checkpoints(path.parent, "key").newest()


def _trained(path: Path) -> object:
    from mpq.records.recovery_lines import read_recovery_lines
    from mpq.report.training_plot import training_plot

    return training_plot(read_recovery_lines(path), "wide")


@functools.cache
def _table() -> Any:
    from mpq.records.sensitivity import read_sensitivity

    return read_sensitivity(Path("model.sensitivity.jsonl"))


@functools.cache
def _small() -> Any:
    return _model(Path("model.pt2"))


@functools.cache
def _tiny() -> Any:
    return _model(Path("tiny"))


_TABLE = "model.sensitivity.jsonl"
_ASSIGNMENTS = ("auto_round.json", "gptqmodel.json", "modelopt.json", "search_state.json", "extra.json")
_INDEX, _WEIGHTS = "shards/model.mpq.safetensors.index.json", "tiny/model.safetensors.index.json"
_ENTRY = f"kept/{hashlib.sha256(b'key').hexdigest()}"
_ALL = (
    Reader("config", ("config.yaml",), _config, mutators.mutate_yaml, (_TABLE,)),
    Reader("budgets", ("budgets.yaml",), _budgets, mutators.mutate_yaml, ("plan.yaml",)),
    Reader("index", (_INDEX,), _index, mutators.mutate_json, ("shards",), "shards/mutated.mpq.safetensors.index.json"),
    Reader("plan", ("plan.yaml", "tiny.plan.yaml"), _plan, mutators.mutate_yaml),
    Reader("sensitivity", (_TABLE, "fisher.sensitivity.jsonl"), _sensitivity, mutators.mutate_lines),
    Reader("artifact", ("model.mpq.safetensors", "tiny.mpq.safetensors"), _artifact, mutators.mutate_safetensors),
    Reader("journal", ("model.study.journal",), _journal, mutators.mutate_lines, (_TABLE,)),
    Reader("from", ("plan.yaml",), _start, mutators.mutate_yaml, (_TABLE,)),
    Reader("hf", ("tiny/config.json",), _directory, mutators.mutate_json, ("tiny",), "tiny/config.json"),
    Reader("hf index", (_WEIGHTS,), _directory, mutators.mutate_json, ("tiny",), _WEIGHTS),
    Reader("torchscript", ("model.torchscript",), _model, mutators.mutate_zip),
    Reader("pt2", ("model.pt2",), _model, mutators.mutate_zip),
    Reader("pt", ("state.pt",), _state, mutators.mutate_zip),
    Reader("safetensors", ("state.safetensors",), _state, mutators.mutate_safetensors),
    Reader("data pt", ("calibration.pt",), _data, mutators.mutate_zip, ("model.pt2",)),
    Reader("data npz", ("calibration.npz",), _data, mutators.mutate_zip, ("model.pt2",)),
    Reader("data npy", ("calibration.npy",), _data, None, ("model.pt2",)),
    Reader("data safetensors", ("calibration.safetensors",), _data, mutators.mutate_safetensors, ("model.pt2",)),
    Reader("text", ("text.txt",), _text, None, ("tiny",)),
    Reader("jsonl", ("text.jsonl",), _text, mutators.mutate_lines, ("tiny",)),
    Reader("chat", ("chat.jsonl",), _text, mutators.mutate_lines, ("tiny",)),
    Reader("parquet", ("text.parquet",), _text, None, ("tiny",)),
    Reader("image", ("images/0/0.png",), _images, None, ("images", "model.pt2"), "images/0/0.png"),
    Reader("coded", ("coded.mpq.safetensors",), _artifact, mutators.mutate_safetensors),
    Reader("fingerprint", ("exported.pt2.fingerprint.json",), _fingerprint, mutators.mutate_json),
    Reader("evaluation", ("model.evaluation.json",), _evaluated, mutators.mutate_json, ("plan.yaml",)),
    Reader("baseline", ("model.mpq.safetensors.monitor.json",), _monitored, mutators.mutate_json, ("watched.jsonl",)),
    Reader("monitor log", ("watched.jsonl",), _monitored, mutators.mutate_lines, ("model.mpq.safetensors.monitor.json",)),
    Reader("cache", (_ENTRY,), _kept, None, (), _ENTRY),
    Reader("checkpoint", ("trained/step-1.safetensors",), _resumed, mutators.mutate_safetensors, (), "trained/step-1.safetensors"),
    Reader("recovery lines", ("trained.recover.jsonl",), _trained, mutators.mutate_lines, ("plan.yaml", _TABLE)),
    Reader("costs", ("latency.csv",), _costs, None, (_TABLE,)),
    Reader("assignment csv", ("assignment.csv",), _start, None, (_TABLE,)),
    Reader("assignment", _ASSIGNMENTS, _start, mutators.mutate_json, (_TABLE,)),
)  # fmt: skip
READERS: Mapping[str, Reader] = {reader.name: reader for reader in _ALL}
