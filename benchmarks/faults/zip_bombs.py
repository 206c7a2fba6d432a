"""Archives and streams of a few megabytes that unpack to gigabytes."""

from __future__ import annotations

import io
import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.hostile_files import artifact_with_program, rewritten

CHUNK = 1 << 24
SIZE = 3 << 30
NPY = b"\x93NUMPY\x01\x00"


def zlib_stream() -> bytes:
    """Gigabytes of zeros as one stream of zlib."""
    return zlib_zeros(SIZE)


def zlib_zeros(size: int, *, raw: bool = False) -> bytes:
    """`size` zeros, deflated: one block again and again, so that making it takes no time."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(CHUNK)
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    end = b"\x03\x00"
    body = block * (size // CHUNK) + end
    return body if raw else b"\x78\xda" + body + b"\0\0\0\0"


def zip_of(name: str, body: bytes, size: int) -> bytes:
    """An archive with one deflated record, whose checksum is wrong: it is checked when all has been read."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, b"x")
    content = made.getvalue()
    start, coded = 30 + len(name), name.encode()
    local = struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, 0, 8, 0, 33, 0, len(body), size, len(coded), 0) + coded
    central = (
        struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", 20, 20, 0, 8, 0, 33, 0, len(body), size, len(coded), 0, 0, 0, 0, 0, 0) + coded
    )
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, len(central), start + len(body), 0)
    assert content.startswith(b"PK")
    return local + body + central + end


def npz(path: Path) -> None:
    header = str({"descr": "|u1", "fortran_order": False, "shape": (SIZE,)}).encode().ljust(118) + b"\n"
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(NPY + struct.pack("<H", len(header)) + header) + packer.flush(zlib.Z_FULL_FLUSH)
    size = len(NPY) + 2 + len(header) + SIZE
    path.write_bytes(zip_of("arr_0.npy", first + zlib_zeros(SIZE, raw=True), min(size, 2**32 - 2)))


def inflated(source: str, record: str) -> bytes:
    """An archive of torch in which one record is deflated blanks."""
    content = Path(source).read_bytes()
    made = io.BytesIO(rewritten(content, lambda records: [(name, data) for name, data in records.items() if name != record]))
    with zipfile.ZipFile(made) as archive:
        top = archive.namelist()[0].partition("/")[0]
    with (
        zipfile.ZipFile(made, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(f"{top}/{record}", "w", force_zip64=True) as file,
    ):
        for _ in range(SIZE // 2 // CHUNK):
            file.write(b" " * CHUNK)
    return made.getvalue()


def xz() -> bytes:
    return lzma.compress(bytes(CHUNK * 4), preset=0) * (SIZE // (CHUNK * 4))


def program(make: Callable[[], bytes], path: Path) -> None:
    """An artifact whose program unpacks to gigabytes."""
    marked = b"the program"
    content = artifact_with_program(Path("model.mpq.safetensors").read_bytes(), lambda _: marked)
    small, bomb = lzma.compress(marked, check=lzma.CHECK_CRC32), make()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    place = data.index(small)
    for entry in (entry for name, entry in header.items() if name != "__metadata__"):
        entry["data_offsets"] = [at + (len(bomb) - len(small) if at > place else 0) for at in entry["data_offsets"]]
    header["mpq.program"]["shape"] = [len(bomb)]
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data.replace(small, bomb))


def many(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(200_000):
            archive.writestr(zipfile.ZipInfo(f"a/data/{number}"), b"")
        archive.writestr(zipfile.ZipInfo("a/data.pkl"), b"\x80\x02}q\x00.")
