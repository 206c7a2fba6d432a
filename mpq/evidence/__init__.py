"""Statistics over values that were measured before: the paired test, predictions, inversions. No torch, and no model."""
