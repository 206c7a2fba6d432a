"""Takes a problem and the plans measured so far; gives the next plans to measure, and their order. It must not know how plans are measured
or where trials are stored. One file is one stage: a module here that defines a `Stage` (see `base.py`) joins every search.
"""
