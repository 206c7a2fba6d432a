"""A forward pass with one changed layer that does not compute again what finished before that layer."""
