"""What backward passes say about a change of the weights: per-sample products, slopes, and gradients of the error."""
