"""Arithmetic on one tensor: quantize, pack, unpack, scales. It knows no model and no data."""
