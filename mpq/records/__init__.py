"""The files that one stage passes to the next, and their size in bytes. No torch."""
