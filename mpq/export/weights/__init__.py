"""Artifacts converted to files that other runtimes load."""
