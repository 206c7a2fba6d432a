"""What every test saves: one thread, bytecode kept, the command line built once, no wait for the disk, and the longest files first."""

import functools
import gc
import os
import sys

import pytest
import typer.testing
from typer.main import get_command

_LONGEST = (
    "tests/faults/test_faults.py",
    "tests/search/test_workers.py",
    "tests/export/weights/executorch/test_target.py",
    "tests/test_readme.py",
    "tests/test_documents.py",
    "tests/cli/test_file_modes.py",
    "tests/verify/test_damages.py",
    "tests/export/weights/test_pt2.py",
    "tests/cli/test_processes.py",
    "tests/export/stored/test_read.py",
    "tests/export/weights/onnx/test_target.py",
    "tests/faults/test_detectors.py",
    "tests/integrations/test_import_hook.py",
    "tests/cli/test_analyze_ranks.py",
    "tests/cli/test_bench.py",
    "tests/cli/test_api_page.py",
    "tests/export/weights/test_compare.py",
    "tests/models/running/test_quantize_processes.py",
    "tests/test_configs.py",
    "tests/cli/test_compress.py",
)

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for each process of pytest-xdist; read when torch is imported
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # the tests start hundreds of processes, and each would compile mpq anew
sys.dont_write_bytecode = False
vars(typer.testing)["_get_command"] = functools.cache(get_command)  # nine tenths of the time of a small command


def _synced(descriptor: int) -> None:
    """In place of `os.fsync`: no test cuts the power, and 4 ms for each file that is written are minutes in all."""
    os.fstat(descriptor)  # a closed file is still an error


vars(os)["fsync"] = _synced


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest-xdist keep the order of the files; its own puts last those of few tests, which are the longest."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no process works alone at the end."""
    place = {name: number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(place)))


def pytest_collection_finish() -> None:
    """What is imported and collected by now stays: it is not searched again for each `gc.collect`."""
    gc.freeze()
