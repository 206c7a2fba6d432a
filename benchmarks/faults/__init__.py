"""Attacks on mpq, and what must be left whole after them. `python -m benchmarks.faults` runs all parts and prints one table."""
