"""Lets other programs use mpq's artifacts: each file is imported only when its program needs it, and requires that program."""
