"""Compares a quantized model with its reference on test data, in the usual metrics."""
