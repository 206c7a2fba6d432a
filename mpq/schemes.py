"""The names of `mpq.formats` under their former home."""

from mpq.formats.packed_layout import TableLayout as TableLayout
from mpq.formats.packed_layout import table_bits as table_bits
from mpq.formats.packed_layout import table_layout as table_layout
from mpq.formats.registry import formats
from mpq.formats.scheme import Scheme as Scheme
from mpq.formats.scheme import parse_scheme as parse_scheme
from mpq.formats.stored import DTYPE_BYTES as DTYPE_BYTES
from mpq.formats.stored import PARTS as PARTS
from mpq.formats.stored import Stored as Stored

FLOAT_FORMATS, INTEGER_FORMATS, LEVEL_FORMATS = (
    {name: found.bits for name, found in formats().items() if found.kind == kind} for kind in ("floats", "integers", "levels")
)
