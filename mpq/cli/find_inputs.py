"""Finds inputs that the user did not specify: the only analysis in a folder, the model of a plan, the data of an analysis."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpq.cli.console import say, warn
from mpq.config import DataSettings, data_settings
from mpq.errors import DataError, HeldError, MismatchError, MpqError, OutputError, UsageError
from mpq.files import exists, journal_lines, relative_source
from mpq.records.hub_name import hub_name
from mpq.records.named_code import refuse_code
from mpq.writing.outputs import refuse_inputs, refuse_special

if TYPE_CHECKING:
    from mpq.data.dataset import Data
    from mpq.models.sources.loaded import LoadedModel

EXAMPLES = "example inputs"
_CALIBRATION = tuple(f"calibration.{kind}" for kind in ("pt", "safetensors", "npz", "npy", "jsonl", "json", "csv", "tsv", "parquet", "txt"))


def stem_of(path: Path) -> str:
    """The base name of a model's files: the file name without suffix, the folder's name, or the name of a model on the hub."""
    hub = hub_name(path)
    name = path.resolve().name if hub is None else hub.repo.rpartition("/")[2]
    if hub is not None:
        return name
    for ending in (".mpq.safetensors", ".sensitivity.jsonl"):
        if name.endswith(ending):
            return name.removesuffix(ending)
    return name if path.is_dir() else Path(name).stem


def only_analysis(folder: Path) -> Path:
    """The one sensitivity file in a folder.

    Raises:
        UsageError: if there is none, or more than one; the message lists them.
    """
    found = sorted(folder.glob("*.sensitivity.jsonl"))
    if not found:
        raise UsageError(f"no *.sensitivity.jsonl in {folder.resolve()}: run `mpq analyze MODEL` first, or name the file")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UsageError(
            f"{len(found)} analyses in this folder ({names}): name one, for example `mpq search {found[0].name} --budget 4.5bits`"
        )
    return found[0]


@contextmanager
def removed_if_bare(path: Path) -> Iterator[None]:
    """If the work fails, removes a sensitivity file that it started and that has no values yet."""
    begun_before = path.exists()
    try:
        yield
    except HeldError:
        raise  # another process owns it
    except MpqError:
        if not begun_before and path.exists() and sum(1 for _ in journal_lines(path)) <= 1:
            path.unlink()
        raise


def calibration_source(given: str | None, model: LoadedModel, *, needed: bool = True) -> str | None:
    """The source of the calibration data: as given, else calibration.* next to the model or here, else example inputs.

    None if there is none and it is not `needed`.

    Raises:
        DataError: if it is needed and there is none.
    """
    if given is not None:
        return given
    folders = [Path.cwd()] if model.path is None else [model.path if model.path.is_dir() else model.path.parent, Path.cwd()]
    for folder in folders:
        for name in _CALIBRATION:
            if (folder / name).exists():
                found = Path(os.path.relpath(folder / name)).as_posix()
                say(f"calibration: {found}, found next to the model; --calib chooses another")
                return found
    if model.example_inputs is not None:
        warn("no calibration data given: using the example inputs of the exported program; --calib FILE gives better results")
        return EXAMPLES
    if not needed:
        return None
    raise DataError("no calibration data: give --calib FILE, for example a .pt with a tensor of inputs, or text for a language model")


def check_output(path: Path, *, inputs: Iterable[Path | str | None] = ()) -> None:
    """Before the long run, refuse an output file that could not be written later, or that the command reads.

    Args:
        path: what will be written.
        inputs: what is read: files, folders, or data in the form of the command line.

    Raises:
        OutputError: if `path` is a folder, a link or a device, is one of `inputs`, or its folder is missing or read-only.
    """
    refuse_special(path)
    refuse_inputs(path, (None if given is None else Path(str(given).partition("?")[0]) for given in inputs))
    trial = path.parent / f".{path.name}.{os.getpid()}.trial"
    try:
        with trial.open("xb"):
            trial.unlink()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another place with --output") from error


def named_inputs(model: Mapping[str, Any], data: Mapping[str, Any], beside: Path) -> list[Path]:
    """Paths of the model and the data that a file names; for `check_output`."""
    named = [model.get("path"), data.get("source")]
    return [beside.parent / str(each).partition("?")[0] for each in named if each is not None]


def read_data(source: str, model: LoadedModel, settings: DataSettings, *, seed: int = 0) -> Data:
    """Data from a file, a callable, or an exported program's example inputs."""
    from mpq.models.inputs.load_data import example_data, load_data

    if source == EXAMPLES:
        return example_data(model)
    return load_data(source, model=model, seed=seed, **asdict(settings))


def how_read(source: str, settings: DataSettings, output: Path) -> dict[str, Any]:
    """How the data was read, for a sensitivity file; paths become relative to that file."""
    source = source if source == EXAMPLES else relative_source(source, output.parent)
    read = {"source": source, "seq_len": settings.seq_len, "num_samples": settings.num_samples, "batch_size": settings.batch_size}
    chosen = {
        name: getattr(settings, name) for name in ("mask", "batch_axis", "text_field", "seed_each_forward") if getattr(settings, name)
    }
    return read | chosen


def reopen_model(
    facts: Mapping[str, Any],
    beside: Path,
    *,
    given: Path | None = None,
    factory: str | None = None,
    trust: bool = False,
    again: bool = False,
    **options: Any,
) -> LoadedModel:
    """The model that a file names, checked by its hash.

    Args:
        facts: path, sha256, kind, factory and how a checkpoint is read, as the file says.
        beside: the file; the path is relative to its folder.
        given: the model, if the user names it.
        factory: what builds the module for a state dict, if the user names it.
        trust: allow a pickled module, and the factory that the file names.
        again: do not report again how a checkpoint was read.
        **options: `device`, `offload` and `max_memory`; see `load_model`.

    Raises:
        TrustError: if the file names a factory, the user names none, and `trust` does not allow it.
        MismatchError: if the model has changed, or cannot be found.
    """
    from mpq.models.sources.load import load_named

    path = given or located_model(facts, beside)
    model = load_named(path, facts, beside, factory=factory, trust=trust, **options)
    for note in () if again else model.notes:
        say(note)
    if model.sha256 != facts.get("sha256"):
        found, expected = model.sha256[:12], str(facts.get("sha256"))[:12]
        raise MismatchError(
            f"{path} is not the model that {beside.name} was made for (sha256 {found}…, expected {expected}…): "
            "restore it, or analyze this one"
        )
    return model


def reopen_data(facts: Mapping[str, Any], beside: Path, model: LoadedModel, *, trust: bool = False) -> Data:
    """The data of an analysis, read as it was then and checked by its hash.

    Args:
        facts: the source and how it was read, as the file says.
        beside: the file; a path is relative to its folder.
        model: decides how the data is read.
        trust: allow calling the source that the file names.

    Raises:
        TrustError: if the source is a callable, and `trust` does not allow it.
        MismatchError: if the data has changed.
    """
    from mpq.models.sources.state_dict import code_named_by_file

    source = str(facts["source"])
    path, mark, rest = source.partition("?")
    if source != EXAMPLES and exists(beside.parent / path):
        source = f"{beside.parent / path}{mark}{rest}"
    elif source != EXAMPLES and ":" not in source:
        raise MismatchError(f"the data {source}, named in {beside.name}, is missing: put it back, or analyze again with --calib")
    elif source != EXAMPLES and not trust:
        refuse_code(source, beside)
    settings = data_settings(facts)
    with code_named_by_file():
        data = read_data(source, model, settings, seed=int(facts.get("seed", 0)))
    if data.sha256 != facts["sha256"]:
        found, before = data.sha256[:12], facts["sha256"][:12]
        raise MismatchError(f"{source} has changed since the analysis (sha256 {found}…, then {before}…): restore it, or analyze again")
    return data


def located_model(facts: Mapping[str, Any], beside: Path) -> Path:
    """The path of the model that a file names.

    Raises:
        MismatchError: if it is not there.
    """
    text = facts.get("path")
    if text is None:
        raise MismatchError(f"{beside.name} was made from a model in memory: use the Python functions, or give --reference MODEL")
    if hub_name(text) is not None:
        return Path(str(text))
    for candidate in (beside.parent / str(text), Path(str(text))):
        if exists(candidate):
            return candidate
    raise MismatchError(f"the model {text}, named in {beside.name}, is missing: put it back, or give --reference MODEL")
