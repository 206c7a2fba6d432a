"""Finds the weights that a forward pass consumes, and the tensors that no scheme changes."""
