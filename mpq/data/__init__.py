"""Samples in memory and in files: batches, datasets, how tensors are read as inputs and labels, and their hash. It knows no model."""
