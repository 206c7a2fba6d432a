"""Artifacts as files that other runtimes load."""
