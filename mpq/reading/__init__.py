"""Text documents that mpq may not have written, read within limits and validated against one definition per kind of file. No torch."""
