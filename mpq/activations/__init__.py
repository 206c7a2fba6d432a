"""Says which tensors between layers can be integers, in which range, and rounds them as a runtime does. Knows nothing of plans or files."""
