"""Formats of tensors between layers. No torch."""

STATIC, DYNAMIC = "a8", "a8d"
LEVELS = 255  # the largest code of `a8`
CHOICES = {"8": STATIC, "8d": DYNAMIC}  # as the command line names them
