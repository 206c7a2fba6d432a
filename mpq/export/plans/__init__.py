"""Plans in the formats of other quantizers, and reading their assignments."""
