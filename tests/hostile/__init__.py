"""Malicious model and data files, each made by a function that writes it into a folder; a marker file tells whether anything ran.

Every builder takes the folder and the marker, and gives the path of what it wrote. `PROGRAMS`, `SCRIPTS`, `PICKLES`, `DIRECTORIES` and
`BOMBS` name them by the loader that they attack. No file does more than create the marker, or claim memory.
"""

from tests.hostile.bombs import BOMBS
from tests.hostile.directories import DIRECTORIES
from tests.hostile.making import Builder, Small, records_of, safetensors, saved, write, zipped
from tests.hostile.pickles import PICKLES, legacy
from tests.hostile.programs import HARMLESS, PROGRAMS, export_records
from tests.hostile.scripts import SCRIPTS

__all__ = [
    "BOMBS",
    "DIRECTORIES",
    "HARMLESS",
    "LIVE",
    "PICKLES",
    "PROGRAMS",
    "SCRIPTS",
    "Builder",
    "Small",
    "export_records",
    "legacy",
    "records_of",
    "safetensors",
    "saved",
    "write",
    "zipped",
]

LIVE: tuple[Builder, ...] = (
    *(PROGRAMS[name] for name in ("sample inputs, another case", "sample inputs twice, the other first", "a pickled constant")),
    *(PROGRAMS[name] for name in ("weights of an older torch", "from_file", "an expression")),
    *(SCRIPTS[name] for name in ("save", "from_file", "a comment before the name", "ops by another name", "setstate that saves")),
    *(PICKLES[name] for name in ("an object in a state dict", "a bare pickle of protocol 4", "a pickle in another case")),
    DIRECTORIES["auto_map"],
)
"""Files that create the marker where the user trusts them: proof that the builders attack what they say."""
