"""Finds the weights that a forward pass uses, and the tensors that are never quantized."""
