"""A forward pass with one changed layer that reuses everything computed before that layer."""
