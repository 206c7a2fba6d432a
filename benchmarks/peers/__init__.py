"""Other quantizers, each in a virtual environment of its own, measured on the same model, data and bytes as mpq."""
