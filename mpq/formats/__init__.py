"""Formats: what "int4-g128" means, in plain numbers: bits, levels, packing, scales, clip ratios, bytes, JSON pattern.

Takes the text of a scheme, and gives the facts that arithmetic, search, schemas and exports need. It must not know torch, models, files or
the formats of other tools.
"""
