"""Samples in memory and in files: batches, datasets, inputs and labels, and their hash. It does not know models."""
