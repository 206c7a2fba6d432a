"""The effect of weight changes from backward passes: per-sample products, slopes, and gradients of the error."""
