"""Quantizers: interchangeable ways to choose the codes of one weight."""
