"""All limits on what mpq reads from files that it did not write, in one place. Constants only, no torch."""

DOCUMENT_BYTES = 16 << 20
"""Bytes of a YAML, JSON or CSV file: plans, configurations, budgets, indexes, cost files, assignments of other tools."""

NESTING = 32
"""Levels of lists and mappings within one another, in any document. mpq writes six at most."""

YAML_NODES = 500_000
"""Values, lists and mappings of a YAML document. Aliases, which could repeat them without end, are refused altogether."""

JSON_NODES = 5_000_000
"""Values, lists and mappings of a JSON document, counted before it is parsed."""

NUMBER_TEXT = 64
"""Characters of a number in a document; a longer one is text."""

NAME_TEXT = 4096
"""Characters of a name, a path, or a text within a record."""

SENSITIVITY_BYTES = 4 << 30
"""Bytes of a sensitivity file, which is read line by line."""

LINE_BYTES = 64 << 20
"""Bytes of one line of a sensitivity file or of a study journal."""

STUDY_BYTES = 1 << 30
"""Bytes of a study journal, which is read line by line."""

TEXT_BYTES = 256 << 20
"""Bytes of a file of text or JSONL, which is read whole."""

TABLE_BATCH_BYTES = 256 << 20
"""Unpacked bytes of a row group, or of 64 rows, of a Parquet or Arrow file."""

TABLE_FILES = 10_000
"""Files of a folder of tables."""

IMAGE_PIXELS = 1 << 26
"""Pixels of one image, before it is resized."""

IMAGE_BYTES = 256 << 20
"""Bytes of the file of one image."""

IMAGES_BYTES = 8 << 30
"""Bytes of all images of a folder, as tensors."""

HEADER_BYTES = 64 << 20
"""Bytes of the JSON header of an artifact; it must also fit into the file before it is read."""

LAYER_WEIGHTS = 1 << 48
"""Weights of one layer, and of all layers of a record together."""

LARGEST_ERROR = 1e300
"""Absolute value of a mean error; a larger one counts as infinite, so that sums over layers stay finite."""

EXPRESSION_TEXT = 2000
"""Characters of a regular expression in a file or an option."""

EXPRESSION_SECONDS = 2.0
"""Seconds of CPU time that one regular expression may take to search all names."""

MESSAGE_TEXT = 1900
"""Characters of an error message, without the name of the program before it."""

SHOWN_TEXT = 80
"""Characters of a value that a message repeats."""

MEBIBYTE = 1 << 20

CODED_WINDOW = 32 * MEBIBYTE  # how far back a frame of coded weights may refer
SAFETENSORS_HEADER_BYTES = 100_000_000  # the format's own limit
ARCHIVE_RECORDS = 200_000  # records of a zip archive
ARCHIVE_RATIO = 200  # unpacked bytes per byte of a compressed file of data, above ARCHIVE_FREE_BYTES
ARCHIVE_FREE_BYTES = 256 * MEBIBYTE  # unpacked bytes allowed for any compressed file of data
GRAPH_BYTES = 256 * MEBIBYTE  # JSON of an exported program
PICKLE_BYTES = 256 * MEBIBYTE  # the pickle in a file of torch, without its tensors
CODE_BYTES = 32 * MEBIBYTE  # TorchScript source, unpacked
PROGRAM_BYTES = 256 * MEBIBYTE  # the program of an artifact, unpacked
CONFIG_BYTES = 16 * MEBIBYTE  # config.json and similar files of a Hugging Face directory
INDEX_BYTES = 64 * MEBIBYTE  # the index of a checkpoint

CACHE = ".mpq-cache"
"""The folder of codes and statistics next to a sensitivity file or a plan."""

CACHE_BYTES = 8 << 30
"""Bytes of all entries of that folder."""
