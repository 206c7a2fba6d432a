"""One command per file: read the options, call the library, print. No arithmetic."""
