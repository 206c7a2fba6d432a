"""Limits on what a file may claim or unfold into, in one place. No torch.

Each is far above what an ordinary file needs, and low enough that a hostile file of a few kilobytes is refused at once.
"""

MEBIBYTE = 1 << 20

SAFETENSORS_HEADER_BYTES = 100_000_000  # the format's own limit
ARCHIVE_RECORDS = 200_000  # records of a zip archive
ARCHIVE_RATIO = 200  # unpacked bytes per byte of a compressed file of data, above ARCHIVE_FREE_BYTES
ARCHIVE_FREE_BYTES = 256 * MEBIBYTE  # what any compressed file of data may unpack to
GRAPH_BYTES = 256 * MEBIBYTE  # JSON of an exported program
PICKLE_BYTES = 256 * MEBIBYTE  # the pickle in a file of torch, without its tensors
CODE_BYTES = 32 * MEBIBYTE  # TorchScript source, unpacked
PROGRAM_BYTES = 256 * MEBIBYTE  # the program of an artifact, unpacked
CONFIG_BYTES = 16 * MEBIBYTE  # config.json and the like of a Hugging Face directory
INDEX_BYTES = 64 * MEBIBYTE  # the index of a checkpoint or of an artifact in several files
SHOWN_CHARACTERS = 80  # of a value from a file, in a message
