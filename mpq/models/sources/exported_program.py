"""torch.export archives: loading one, and stripping one of its weights so that the module can be rebuilt from it.

An artifact stores its weights itself, so in the program stored with them every weight is replaced by a tensor of stride 0 over one element:
names, shapes, dtypes and ties are kept, the bytes are not. When a program is loaded, constants and buffers outside the state dict that may
be weights become buffers of the state dict; small ones and integer ones stay constants.
"""

from __future__ import annotations

import importlib
import io
import lzma
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from mpq.errors import FormatError, ModelError
from mpq.files import open_file
from mpq.limits import PROGRAM_BYTES
from mpq.models.sources.archive_guard import MODEL, checked_archive
from mpq.models.sources.loaded import LoadedModel
from mpq.shown import first_line

ExampleInputs = tuple[tuple[Any, ...], dict[str, Any]]
_WEIGHTS = (torch.float32, torch.float16, torch.bfloat16)
_XZ_MAGIC = b"\xfd7zXZ"
_LEAST_WINDOW, _MOST_WINDOW = 1 << 12, 1 << 26
_STORED = "the program in the artifact"
_DAMAGED = "the program in the artifact is damaged: write the artifact again with `mpq apply`"


def load_program(path: Path, *, sha256: str, trust: bool) -> LoadedModel:
    """The module of a torch.export archive, with its example inputs.

    Raises:
        ModelError: if the archive is damaged, could run code, or was exported in training mode.
    """
    with open_file(path) as file:
        program, example_inputs, safe = _read_any(file, str(path)) if trust else (*_read(file, str(path)), True)
    with _readable(str(path)):
        _check_mode(program, path)
    lift_constants(program)
    _replace_state(program, Tensor.contiguous)  # as in a rebuilt module, so that both compute bit-identical results
    module = _module_of(program, str(path))
    return LoadedModel(module, "export", sha256, path=path, example_inputs=example_inputs, program=strip_program(program) if safe else None)


def lift_constants(program: ExportedProgram) -> None:
    """Move the constants of `program` that may be weights (floating point, two or more dimensions) into its state dict, under their names.

    A tensor that is neither a parameter nor a registered buffer becomes a constant of the program, even if matrix products use it.
    """
    specs, written = program.graph_signature.input_specs, set(_written(program))
    changed = {*program.graph_signature.buffers_to_mutate.values(), *(spec.target for spec in specs if spec.arg.name in written)}
    lifted = [name for name, tensor in program.constants.items() if name not in changed and _may_be_weight(tensor)]
    for spec in specs:
        if spec.target in lifted:
            spec.kind, spec.persistent = InputKind.BUFFER, True
    program.state_dict.update({name: program.constants.pop(name).detach() for name in lifted})


def _written(program: ExportedProgram) -> Iterator[str]:
    """The names of the nodes that the graph modifies in place."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        for argument, value in zip(() if schema is None else schema.arguments, node.args, strict=False):
            if argument.is_write and isinstance(value, torch.fx.Node):
                yield value.name


def _may_be_weight(constant: object) -> bool:
    if not isinstance(constant, Tensor) or isinstance(constant, FakeTensor) or constant.layout != torch.strided:
        return False
    return constant.dtype in _WEIGHTS and sum(size > 1 for size in constant.shape) > 1


def strip_program(program: ExportedProgram) -> bytes | None:
    """`program` without its weights and example inputs, compressed; the same program gives the same bytes. Modifies `program`.

    None if its constants make it larger than `read_program` accepts.

    Raises:
        ModelError: if torch cannot write it.
    """
    _replace_state(program, _hollow)
    drop_traces(program)
    buffer = io.BytesIO()
    try:
        with _quiet():
            torch.export.save(program, buffer)
    except Exception as error:  # torch raises any error for a graph that it did not write
        raise ModelError(f"torch cannot write the program again ({first_line(error)}): export the model again") from error
    content = buffer.getvalue()
    return None if len(content) > PROGRAM_BYTES else _compress(content)


def drop_traces(program: ExportedProgram) -> None:
    """Remove large parts and traces of the exporting machine from `program`: example inputs, and the source location of each node."""
    program.example_inputs = None
    program._guards_code = []
    for graph_module in _graph_modules(program):
        for node in graph_module.graph.nodes:
            node.meta.pop("stack_trace", None)


def rebuild_program(content: bytes, *, hollow: bool = False) -> nn.Module:
    """The module of a stripped program, like `read_program`.

    Raises:
        FormatError: if `content` is damaged.
        ModelError: if it could run code when loaded.
    """
    return _module_of(read_program(content, hollow=hollow), _STORED)


def read_program(content: bytes, *, hollow: bool = False) -> ExportedProgram:
    """The program from `strip_program`; every parameter and buffer of the state dict is zero, contiguous and writable.

    Args:
        content: the compressed program.
        hollow: leave them without memory; they will be replaced.

    Raises:
        FormatError: if `content` is damaged.
        ModelError: if it could run code when loaded.
    """
    program, _ = _read(io.BytesIO(_decompress(content)), _STORED)
    if not hollow:
        _replace_state(program, torch.zeros_like)
    return program


def _read(file: IO[bytes], source: str) -> tuple[ExportedProgram, ExampleInputs | None]:
    """The program of an archive that cannot run code, and its example inputs."""
    with _quiet(), _readable(source):
        checked = checked_archive(file, source)
        return _deserialize(cast("IO[bytes]", checked.file)), checked.example_inputs


def _read_any(file: IO[bytes], source: str) -> tuple[ExportedProgram, ExampleInputs | None, bool]:
    """The same of an archive that the user trusts, and whether it cannot run code: only then an artifact may hold it."""
    try:
        return *_read(file, source), True
    except ModelError:
        file.seek(0)
    with _quiet(), _readable(source):
        program = _deserialize(file)
        return program, program.example_inputs or None, False


@contextmanager
def _readable(source: str) -> Iterator[None]:
    """Turns errors of torch on an archive into ModelError."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # any failure in torch is caused by the file
        raise ModelError(f"{source} cannot be read as a torch.export archive ({first_line(error)}): export the model again") from error


def _deserialize(file: IO[bytes]) -> ExportedProgram:
    try:
        return _load_model(file)
    except NotImplementedError:  # an output type that torch does not know until transformers, if installed, is imported
        importlib.import_module("transformers.modeling_outputs")
        importlib.import_module("transformers.cache_utils")
        file.seek(0)
        return _load_model(file)


def _load_model(file: IO[bytes]) -> ExportedProgram:
    """The result of torch.export.load, which would otherwise log a traceback and hide the reason when it fails."""
    from torch.export.pt2_archive._package import load_pt2  # late: slow to import, and other kinds of models do without

    program: ExportedProgram = load_pt2(file).exported_programs[MODEL]  # type: ignore[arg-type, unused-ignore]
    return program


def _module_of(program: ExportedProgram, source: str) -> nn.Module:
    """The program's module, without its guards: these are generated code, and the plain input checks have clearer messages."""
    with _readable(source):
        module: nn.Module = program.module(check_guards=False)
    for part in module.modules():
        part.training = False  # torch.export refuses .eval(); the mode is fixed in the graph
    return module


def _check_mode(program: ExportedProgram, path: Path) -> None:
    for graph_module in _graph_modules(program):
        for node in graph_module.graph.nodes:
            name = str(node.target)
            trained = name == "aten.dropout.default" and node.args[1] > 0 and node.args[2]
            if trained or (name == "aten.batch_norm.default" and node.args[5]):
                raise ModelError(f"{path} was exported in training mode ({name} is active): export it after model.eval()")


def _graph_modules(program: ExportedProgram) -> Iterator[torch.fx.GraphModule]:
    return (part for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule))


def _hollow(tensor: Tensor) -> Tensor:
    if tensor.numel() <= 1:
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    return torch.zeros(1, dtype=tensor.dtype).expand(tensor.shape)


def _replace_state(program: ExportedProgram, make: Callable[[Tensor], Tensor]) -> None:
    """Replace every tensor of the state dict by `make(tensor)`; tied tensors stay tied."""
    made: dict[object, Tensor] = {}
    state = program.state_dict
    for name, tensor in list(state.items()):
        key = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.dtype) if tensor.numel() else name
        if key not in made:
            made[key] = make(tensor.detach())
        state[name] = nn.Parameter(made[key], tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made[key]


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses torch's warnings about weights of stride 0, and those of torch 2.9 about the bytes that it makes tensors of."""
    with warnings.catch_warnings():
        for remark in ("No complete tensor found in the group", "The given buffer is not writable"):
            warnings.filterwarnings("ignore", message=remark, category=UserWarning)
        yield


def _compress(content: bytes) -> bytes:
    window = max(_LEAST_WINDOW, 1 << (len(content) - 1).bit_length())  # that of the preset is 64 MiB, which takes time and memory to clear
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": min(window, _MOST_WINDOW)}]
    candidates = (lzma.compress(content, check=lzma.CHECK_CRC32, filters=filters), zlib.compress(content, 9))
    return min(candidates, key=len)


def _decompress(content: bytes) -> bytes:
    """The archive of a stored program, unpacked up to the limit."""
    machine = lzma.LZMADecompressor(memlimit=PROGRAM_BYTES) if content.startswith(_XZ_MAGIC) else zlib.decompressobj()
    try:
        found = machine.decompress(content, PROGRAM_BYTES + 1)
    except (lzma.LZMAError, zlib.error, EOFError, MemoryError) as error:
        raise FormatError(_DAMAGED) from error
    if len(found) > PROGRAM_BYTES:
        raise FormatError(f"the program in the artifact unpacks to more than {PROGRAM_BYTES:,} bytes: give the original model too")
    if not machine.eof or machine.unused_data:
        raise FormatError(_DAMAGED)
    return found
