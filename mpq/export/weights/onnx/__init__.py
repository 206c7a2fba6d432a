"""ONNX files: weights dequantized inside the graph."""
