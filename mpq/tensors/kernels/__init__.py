"""Products with packed weights, chosen by format, shape and dtype."""
