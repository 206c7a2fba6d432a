"""Matrix products with packed weights, chosen by format, shape and dtype."""
