"""Runs a model, changes its weights within a `with`, and measures how its outputs change.

It does not know which weights are layers.
"""
