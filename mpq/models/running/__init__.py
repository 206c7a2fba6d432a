"""Calls a model, changes its weights for the length of a `with`, and measures how far its outputs move.

It does not know which weights are layers.
"""
