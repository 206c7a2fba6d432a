"""Takes a reference and a quantized model and test data, and gives their difference in the metrics that people use."""
