"""Recover quality without extra bytes. Input: quantized weights, calibration samples and held-out samples. Output: better values for what
an artifact stores anyway, and a `Decision` for each step. It must not know files, plans or how an artifact is written.
"""
