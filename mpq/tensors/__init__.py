"""Arithmetic on one tensor: quantize, pack, unpack, scales. It does not know models or data."""
