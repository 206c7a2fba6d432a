"""Plans as other quantizers read them, and their assignments read back."""
