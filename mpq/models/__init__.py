"""PyTorch models: loading, where weights are kept, running, and the weights that they use."""
