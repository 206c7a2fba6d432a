"""Lets other programs use mpq's artifacts from inside: each file is imported when its program asks for it, and needs that program."""
