"""Whether the archives in a folder hold what they should: python .ci/archives.py dist.

The source archive has every file that git tracks, the wheel every one below `mpq/`, and neither has anything else of this folder.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

MADE = ("PKG-INFO", "setup.cfg")  # by the build


def main(folder: Path) -> int:
    """Print what is missing or strange; 1 if anything is."""
    tracked = set(subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.splitlines())
    (source,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    with tarfile.open(source) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    in_source = {name for name in names if name not in MADE and ".egg-info/" not in name}
    in_wheel = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {name for name in tracked if name.startswith("mpq/")}
    faults = [
        f"{archive.name} {'lacks' if name in wanted else 'has'} {name}"
        for archive, found, wanted in ((source, in_source, tracked), (wheel, in_wheel, package))
        for name in sorted(found ^ wanted)
    ]
    print(*faults, f"{source.name}: {len(in_source)} files; {wheel.name}: {len(in_wheel)} files", sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
