"""Bytecode is kept, as Python does by default: the tests start hundreds of processes, and each would compile mpq anew."""

import os
import sys

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
