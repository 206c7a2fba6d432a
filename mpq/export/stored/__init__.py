"""Reads exports back: takes a file, gives codes, scales and tensors by name. It computes nothing and runs no code from the file."""
