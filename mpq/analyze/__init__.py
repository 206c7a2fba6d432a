"""Takes a model, data and candidate schemes, and writes the sensitivity file: the error of every layer under every scheme."""
