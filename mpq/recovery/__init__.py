"""Win back quality at no bytes: quantized weights, calibration samples and held-out samples come in; better values for what an artifact
stores anyway, and a `Decision` for each step, come out. It must not know files, plans or how an artifact is written.
"""
