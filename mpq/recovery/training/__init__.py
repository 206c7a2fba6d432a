"""Training at fixed bytes: takes a quantized model and data, gives better scales, codes and vectors. Writes no artifact."""
