from pathlib import Path

import pytest

from mpq.models.memory.available import available_bytes


@pytest.mark.parametrize(
    ("machine", "most", "now", "expected"),
    [
        ("MemTotal: 9 kB\nMemAvailable:    4 kB\n", None, None, 4096),
        ("MemAvailable: 4 kB\n", "3000\n", "1000\n", 2000),
        ("MemAvailable: 4 kB\n", "90000\n", "1000\n", 4096),
        ("MemAvailable: 4 kB\n", "max\n", "1000\n", 4096),
        ("MemTotal: 9 kB\n", "500\n", "700\n", 0),
        ("", None, None, None),
    ],
)
def test_the_smaller_of_what_the_machine_and_the_group_have_left(
    tmp_path: Path, machine: str, most: str | None, now: str | None, expected: int | None
) -> None:
    for name, text in (("meminfo", machine), ("memory.max", most), ("memory.current", now)):
        if text is not None:
            (tmp_path / name).write_text(text)
    assert available_bytes(tmp_path / "meminfo", tmp_path) == expected


def test_unreadable_files_tell_nothing(tmp_path: Path) -> None:
    assert available_bytes(tmp_path / "none", tmp_path / "none") is None
