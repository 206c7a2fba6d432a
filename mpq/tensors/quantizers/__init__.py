"""Quantizers: interchangeable methods to choose the codes of one weight."""
