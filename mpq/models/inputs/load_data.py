"""Calibration and evaluation data for a model, from a file or a callable.

A source is one of

    calibration.pt              a tensor [N, ...], a tuple of inputs (a last 1-D integer tensor is labels if the model takes one
                                input fewer), a dict of keyword arguments (its "labels" are labels), or a list of these
    calibration.npz .npy .safetensors
    stories.txt                 running text, for a language model with a tokenizer
    stories.jsonl               one record per line: text, chat messages, prompt and response, or an instruction (`conversations.py`);
                                for encoders a document, or a line of plain text, is one sample
    stories.json .csv .tsv      such records as a JSON list or rows of a table (`text_records.py`); any of these with gzip too
    stories.jsonl?split=train   only the lines whose field "split" is "train"
    rows.parquet, rows.arrow    such records as a table, or a folder of tables of Hugging Face `datasets`, with ?split=NAME
    photos, photos?resize=256   a folder of PNG or JPEG images, or of one folder per class (`data/image_folder.py`)
    package.module:callable     called without arguments; returns tensors, or an iterable such as a DataLoader

and is recognized by its content, never by its extension; only CSV and TSV, which any text may look like, by both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mpq.data.array_files import READABLE, read_arrays
from mpq.data.batch import Batch
from mpq.data.dataset import Data
from mpq.data.image_folder import read_images
from mpq.data.tables import table_files
from mpq.errors import DataError, UsageError
from mpq.models.inputs.fit_to_model import fit_data
from mpq.models.inputs.text import is_encoder, padded_documents, windows
from mpq.models.sources.load import from_module
from mpq.models.sources.loaded import LoadedModel
from mpq.models.sources.state_dict import named, working_directory_importable
from mpq.shown import first_line

_CALLABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_SELECTION = re.compile(r"(?P<path>.+)\?(?P<field>[^?=]+)=(?P<value>[^?]*)")


def load_data(
    source: Path | str,
    *,
    model: nn.Module | LoadedModel,
    seq_len: int | None = None,
    num_samples: int | None = None,
    batch_size: int | None = None,
    mask: str | None = None,
    batch_axis: int | str | None = None,
    text_field: str | None = None,
    seed_each_forward: bool = False,
    split: str | None = None,
    spread: bool = True,
    seed: int = 0,
) -> Data:
    """Load the data that `source` names, fitted to `model`.

    Args:
        source: a .pt, .npz, .npy or .safetensors file of inputs, text, JSONL, JSON or CSV for a language model ("file.jsonl?split=train"
            selects lines), or "package.module:callable".
        model: the model for the data; it decides how the data is read, and one sample of each shape is tried.
        seq_len: tokens per window of text; None means the model's positions, at most 512.
        num_samples: use only so many samples or windows; None uses all.
        batch_size: None means 64 samples, or 8 token sequences or large samples; a list of batches keeps its own size.
        mask: the input that says which positions are data; None looks for one (`data/masks.py`).
        batch_axis: axis of the inputs that counts samples; "none" makes each batch one sample; None finds out.
        text_field: the field of a record that holds the text; None looks for one.
        seed_each_forward: start every call of the model with the same random seed, for models that draw random numbers.
        split: "position" or "random"; None takes position for windows of token ids, else random (`data/split_rule.py`).
        spread: whether `num_samples` are spread evenly over the source; False uses the first ones. What a callable yields one by one is
            read no further than needed, so the first ones are used.
        seed: torch's random seed while a callable makes its data.

    Raises:
        DataError: if the source cannot be read, or does not match the model.
        UsageError: if a number is out of range, or an option does not apply to this source.
    """
    source, model = str(source), model if isinstance(model, LoadedModel) else from_module(model)
    path, only = _selection(source)
    content, complete = (None, True) if path.exists() else _called(source, num_samples, seed)
    chosen, notes = False, list[str]()
    if content is None and path.is_dir():
        content, chosen, notes = _images(path, source, only, model, num_samples, spread=spread)
        only = None if content is not None else only
    elif content is None:
        content = read_arrays(path, source)
    if content is not None:
        if seq_len is not None:
            raise UsageError(f"--seq-len {seq_len} applies to text, but {source} holds tensors: leave it out")
        if only is not None:
            raise UsageError(f"{source} selects lines, but the file holds tensors: leave out '?{only[0]}={only[1]}'")
        return fit_data(
            content,
            model=model,
            source=source,
            num_samples=num_samples,
            batch_size=batch_size,
            mask=mask,
            batch_axis=batch_axis,
            seed_each_forward=seed_each_forward,
            split=split,
            spread=spread and complete,
            chosen=chosen,
            notes=notes,
        )
    if num_samples is not None and num_samples < 1:
        raise UsageError(f"--num-samples {num_samples} is not a number of samples: give 1 or more")
    if is_encoder(model):
        documents, notes = padded_documents(
            path,
            source=source,
            model=model,
            seq_len=seq_len,
            num_samples=num_samples,
            batch_size=batch_size,
            only=only,
            field=text_field,
            spread=spread,
        )
        return fit_data(
            documents,
            model=model,
            source=source,
            mask=mask,
            batch_axis=batch_axis or 0,
            notes=notes,
            seed_each_forward=seed_each_forward,
            split=split or "random",
            chosen=spread and num_samples is not None,
        )
    batch, notes = windows(
        path, source=source, model=model, seq_len=seq_len, num_samples=num_samples, only=only, field=text_field, spread=spread
    )
    return fit_data(
        batch,
        model=model,
        source=source,
        num_samples=num_samples,
        batch_size=batch_size,
        seed_each_forward=seed_each_forward,
        split=split,
        spread=spread,
        ordered=True,
        notes=notes,
    )


def _images(
    folder: Path, source: str, only: tuple[str, str] | None, model: LoadedModel, num_samples: int | None, *, spread: bool
) -> tuple[Any, bool, list[str]]:
    """The images of a folder, whether they were chosen from more, and notes; None for a folder of tables.

    Raises:
        DataError: if it has neither.
    """
    split = only[1] if only is not None and only[0] == "split" else None
    if table_files(folder, source, split=split) is not None:
        return None, False, []
    own = model.path if model.path is not None and model.path.is_dir() else None
    settings = "" if only is None else "=".join(only)
    found = read_images(folder, source, settings=settings, model=own, num_samples=num_samples, spread=spread)
    if found is None:
        raise DataError(f"{source} is a folder without Parquet or Arrow files, and without PNG or JPEG images: give a file of {READABLE}")
    images, notes = found
    return images if len(images) > 1 else images[0], spread and num_samples is not None, notes


def example_data(model: LoadedModel) -> Data:
    """The example inputs of an exported program; often random, so not a substitute for real data.

    Raises:
        DataError: if the model has none.
    """
    if model.example_inputs is None:
        raise DataError("no calibration data was given, and the model has no example inputs: give data with --calib FILE")
    args, kwargs = model.example_inputs
    return fit_data(Batch(tuple(args), dict(kwargs)), model=model, source="example inputs")


def _selection(source: str) -> tuple[Path, tuple[str, str] | None]:
    """The path in `source`, and the field and value after a "?"; a file whose name contains "?" takes precedence."""
    match = None if Path(source).exists() else _SELECTION.fullmatch(source)
    if match is None:
        return Path(source), None
    return Path(match["path"]), (match["field"], match["value"])


def _called(source: str, num_samples: int | None, seed: int) -> tuple[Any, bool]:
    """The result of the callable that `source` names, None if it names none, and whether it is complete.

    What it yields one by one is read up to `num_samples` batches.
    """
    if not _CALLABLE.fullmatch(source):
        return None, True
    complete = True
    try:
        with working_directory_importable(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            target = named(source, option="--data")
            content = target() if callable(target) else target
            if isinstance(content, Iterable) and not isinstance(content, (Tensor, dict, tuple, list)):
                complete = hasattr(content, "keys")
                content = content if complete else list(islice(content, num_samples))
    except Exception as error:  # the user's own code, which may fail in any way
        raise DataError(f"{source} failed with {type(error).__name__}: {first_line(error)}") from error
    if content is None:
        raise DataError(f"{source} returned None: return tensors, or an iterable of batches")
    return content, complete
