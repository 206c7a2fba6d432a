"""`python -m mpq`: the command line."""

from mpq.cli.main import main

if __name__ == "__main__":
    main()
