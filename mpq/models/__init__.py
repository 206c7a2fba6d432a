"""PyTorch models: where they come from, where their weights live, how they run, and which weights they consume."""
