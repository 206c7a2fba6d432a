"""Integer activations beside other tools: `python -m benchmarks.activations`."""
