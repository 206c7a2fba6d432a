"""Options that several commands share. Settings are merged: command line over configuration file over default."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpq.budget import size_bytes
from mpq.config import AnalysisSettings, DataSettings, SearchSettings, read_config
from mpq.errors import UsageError
from mpq.formats.registry import names
from mpq.limits import CACHE

if TYPE_CHECKING:
    import torch

Factory = Annotated[
    str | None,
    typer.Option(
        "--builder",
        metavar="PACKAGE.MODULE:CALLABLE",
        help="Function that builds the module for a state dict; only needed for state dicts.",
        rich_help_panel="Model",
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option("--reference", metavar="MODEL", help="The unquantized model, if it has moved.", rich_help_panel="Model"),
]
CheckpointKey = Annotated[
    str | None,
    typer.Option(
        "--checkpoint-key",
        metavar="KEY",
        help="The entry of a checkpoint that holds the weights, such as ema or state_dict.generator. [default: the one that fits]",
        rich_help_panel="Model",
    ),
]
AllowUnexpected = Annotated[
    bool,
    typer.Option(
        "--allow-unexpected",
        help="Ignore entries of a state dict that the module does not have, and list them.",
        rich_help_panel="Model",
    ),
]
Activations = Annotated[
    str | None,
    typer.Option(
        metavar="all|off|ERROR",
        help="Tensors between layers that become 8-bit integers, of those that were measured: all, off, or those whose errors add up "
        "to at most ERROR. With --max-error or --max-drop: as many as the limit allows. [default: all]",
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Let files run their own code with your rights: pickled modules, custom operators, callables that a file names.",
        rich_help_panel="Model",
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="With --offload: memory limit for weights, quantized copies and reference outputs together, such as 64MB. [default: 1GiB]",
        rich_help_panel="Model",
    ),
]
SeqLen = Annotated[
    int | None, typer.Option(help="Tokens per window, for text. [default: the model's own, at most 512]", rich_help_panel="Data")
]
NumSamples = Annotated[
    int | None, typer.Option(help="Use only so many samples, spread evenly over the file. [default: all]", rich_help_panel="Data")
]
BatchSize = Annotated[int | None, typer.Option(help="Samples per batch. [default: chosen by their size]", rich_help_panel="Data")]
Mask = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The input that marks real positions, such as attention_mask, or ~NAME if it marks padding; all other positions are ignored. "
        "[default: found by form, content and name]",
        rich_help_panel="Data",
    ),
]
BatchAxis = Annotated[
    str | None,
    typer.Option(
        metavar="N|none",
        help="The axis of the inputs that indexes samples. none: each batch is one sample, for example a graph. [default: found by trying]",
        rich_help_panel="Data",
    ),
]
TextField = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The field of a record that holds the text. [default: text, or the only field with text]",
        rich_help_panel="Data",
    ),
]
SeedEachForward = Annotated[
    bool,
    typer.Option(
        "--seed-each-forward", help="For models that draw random numbers: start every call with the same seed.", rich_help_panel="Data"
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        metavar="position|random",
        help="How samples are held out: position (the last ones, after a gap) or random. [default: position for windows of tokens, else "
        "random]",
        rich_help_panel="Data",
    ),
]
Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="YAML file with settings; options on the command line override it.")
]
Cache = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|off",
        help="Folder for quantized codes and statistics that analyze, search and apply share; at most 8 GiB, safe to delete. [default: "
        ".mpq-cache next to the sensitivity file or plan, one folder up, or here]",
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="|".join(sorted(names("floats"))),
        help="The dtype that the packed model computes in, like mpq.load(..., dtype=...). [default: that of the original]",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Where the model computes: cpu, cuda, cuda:1, mps, or auto for the fastest that is there. [default: cpu]",
        rich_help_panel="Model",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def cache_folder(cache: str | None, beside: Path) -> Path | None:
    """The folder that `--cache` names; None if the cache is off.

    By default it is the one next to a file. If there is none, it is the one a folder up (plans may be in a folder of their own) or in the
    current folder, if that exists.
    """
    if cache is not None:
        return None if cache == "off" else Path(cache)
    places = [folder / CACHE for folder in (beside.parent, beside.absolute().parent.parent, Path())]
    return next((place for place in places if place.is_dir()), places[0])


def dtype_of(name: str | None) -> torch.dtype | None:
    """The dtype of torch that `--dtype` names.

    Raises:
        UsageError: if it names none.
    """
    if name is None:
        return None
    if name not in names("floats"):
        raise UsageError(f"--dtype {name} is not a dtype that a model computes in: write {', '.join(names('floats'))}")
    from mpq.tensors.quantized import FLOAT_DTYPES

    return FLOAT_DTYPES[name]


def merged(section: str, config: Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of one command: the `options` given override the configuration file."""
    base = {} if config is None else read_config(config, section)
    return base | {name: value for name, value in options.items() if value is not None and value != []}


def default_of(settings: AnalysisSettings | DataSettings | SearchSettings, name: str) -> str:
    """The default of a setting, for a help text."""
    value = getattr(settings, name)
    return f"[default: {','.join(value) if isinstance(value, tuple) else value}]"


def memory_limit(max_memory: str | None, offload: Path | None) -> int | None:
    """The bytes of `--max-memory`; None without it.

    Raises:
        UsageError: if there is no `--offload`, whose memory it limits.
        BudgetError: if it is no size.
    """
    if max_memory is not None and offload is None:
        raise UsageError(f"--max-memory {max_memory} limits what --offload keeps in memory: name a folder with --offload")
    return None if max_memory is None else size_bytes(max_memory)
